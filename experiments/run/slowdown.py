"""An intervention: one stage of a run gets slower by a stated share, by a throttle beside each of its processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import psutil

from experiments.machine.beside import Beside
from experiments.machine.throttle import Slowed
from experiments.run.usage import processes
from pipeline import logs
from pipeline.errors import EmoStreamError, SettingError

log = logs.get(__name__)

STAGES = {
    "ingest": ("ingest",),
    "kafka": ("kafka",),
    "spark": ("spark",),
    "delivery": ("main-publisher", "cluster-publisher", "subscriber"),
    "instrument": ("load", "receivers"),
}
"""The values of `slow_stage` that slow something, and the stages of `usage` that each one means."""
# The load starts later than the chain, and a worker may be started again.
LOOK_S = 1.0


class Slowdown:
    """Slows `stage` by `share` while it is entered; `about` then says what was done, for the manifest.

    `roots` are ids of processes below which those of the stage are, besides those below this one. With the stage "none"
    it does nothing, and `about` is empty.
    """

    def __init__(self, stage: str, share: float, roots: Iterable[int]) -> None:
        self.about: dict[str, Any] = {}
        self._stage, self._share = stage, share
        self._roots = (os.getpid(), *roots)
        self._throttles: dict[int, Beside] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slowdown", daemon=True)

    def __enter__(self) -> Slowdown:
        """Slow what there is of the stage. Raises SettingError if it is a stage of the chain that has no process."""
        if self._stage != "none":
            self._begin()
            if not self._throttles and self._stage != "instrument":
                raise SettingError(
                    f"parameter slow_stage is {self._stage!r}, and the chain has no process of it: choose another "
                    "stage, or 'none'; a twin cannot be slowed"
                )
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stage == "none":
            return
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for throttle in self._throttles.values():
            throttle.ask()
        slowed = [done for pid, throttle in self._throttles.items() if (done := _result(pid, throttle)) is not None]
        self.about = described(self._stage, self._share, slowed)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._begin()

    def _begin(self) -> None:
        for process, stage in processes(self._roots):
            if stage in STAGES[self._stage] and process.pid not in self._throttles:
                self._throttles[process.pid] = Beside("throttle", process.pid, self._share)


def described(stage: str, share: float, slowed: Iterable[Slowed]) -> dict[str, Any]:
    """Return what the manifest has of an intervention: `stage`, the `share` asked for and the one `reached`, and each
    process. `reached` is the CPU used in the stage's place, of that and the stage's own: a stage that hardly used CPU
    got more than was asked for, since the throttles have to look.

    Raises EmoStreamError if nothing was slowed.
    """
    rows = list(slowed)
    own_s, burned_s = sum(row.cpu_s for row in rows), sum(row.burned_s for row in rows)
    if own_s <= 0:
        raise EmoStreamError(f"the stage {stage!r} was not slowed: none of its processes ran. Run again")
    return {
        "stage": stage,
        "share": share,
        "reached": round(burned_s / (own_s + burned_s), 5),
        "cpu_s": round(own_s, 3),
        "burned_s": round(burned_s, 3),
        "processes": [asdict(row) for row in rows],
    }


def _result(pid: int, throttle: Beside) -> Slowed | None:
    """Return what a throttle did, None for one whose process ended before it began."""
    try:
        return Slowed(**throttle.end())
    except EmoStreamError as error:
        log.info("a throttle did nothing", pid=pid, reason=str(error))
        # One that was killed may have left its process stopped.
        with suppress(psutil.Error):
            psutil.Process(pid).resume()
        return None
