"""Give processes a limited number of cores: `python -m experiments.machine.quota CORES PID…`, until SIGTERM.

The processes below them are limited as well, those that are started later too. In each PERIOD_S all of them together
may use CORES × PERIOD_S of CPU time. Once they have, they are stopped (SIGSTOP) until the next period, as the kernel's
quota of a control group does; it needs no right to make one. What they use too much between two looks is taken off the
next period. At the end one line of JSON is printed: see `Limited`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import psutil

from experiments.machine.ending import until_asked
from experiments.machine.scheduling import go_first
from experiments.machine.throttle import cpu_clock

PERIOD_S = 0.1
TICK_S = 0.003
LOOK_S = 1.0


@dataclass(frozen=True)
class Limited:
    """What was done: the mean number of cores that the processes used, the share of the time for which they were
    stopped, and how long it lasted (s).
    """

    used_cores: float
    stopped_share: float
    lasted_s: float


def limit(pids: Sequence[int], cores: float) -> Limited:
    """Limit the processes, and all below them, until SIGTERM or SIGINT, or until all of them or our parent have ended.

    None is left stopped. Raises OSError if none of them runs.
    """
    parent = os.getppid()
    used = _Used(pids)
    if not used.clocks:
        raise ProcessLookupError(f"none of the processes {', '.join(map(str, pids))} runs")
    first_s = used.now()
    looked_s = began_s = time.monotonic()
    allowed_s, stopped_s = first_s, 0.0
    with until_asked():
        try:
            while os.getppid() == parent and used.alive:
                period_ends_s = time.monotonic() + PERIOD_S
                if period_ends_s - looked_s > LOOK_S:
                    looked_s = period_ends_s
                    used.look()
                # What a period did not use is not saved for later.
                allowed_s = min(allowed_s, used.now()) + cores * PERIOD_S
                while (left_s := period_ends_s - time.monotonic()) > 0:
                    if used.now() < allowed_s:
                        time.sleep(min(TICK_S, left_s))
                        continue
                    used.signal(signal.SIGSTOP)
                    time.sleep(left_s)
                    used.signal(signal.SIGCONT)
                    stopped_s += left_s
        finally:
            used.signal(signal.SIGCONT)
    lasted_s = time.monotonic() - began_s
    return Limited((used.now() - first_s) / lasted_s, stopped_s / lasted_s, lasted_s)


class _Used:
    """The CPU time of several processes; that of one that has ended stays what it was."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.alive = True
        self.clocks: dict[int, float] = {}
        self._tops = tuple(pids)
        self.look()

    def look(self) -> None:
        """Take in processes that are new: a worker may have been started again."""
        for top in self._tops:
            with suppress(OSError, psutil.Error):
                below = psutil.Process(top).children(recursive=True)
                for pid in (top, *(child.pid for child in below)):
                    if pid not in self.clocks:
                        self.clocks[pid] = time.clock_gettime(cpu_clock(pid))

    def now(self) -> float:
        self.alive = False
        for pid in self.clocks:
            with suppress(OSError):
                self.clocks[pid] = time.clock_gettime(cpu_clock(pid))
                self.alive = True
        return sum(self.clocks.values())

    def signal(self, number: int) -> None:
        for pid in self.clocks:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def main() -> None:
    """`python -m experiments.machine.quota`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.machine.quota",
        description="Give processes together a number of cores until SIGTERM; print what was done as JSON. A run with "
        "chain_cores starts one.",
    )
    line.add_argument("cores", type=float, help="such as 0.75")
    line.add_argument("pids", type=int, nargs="+", metavar="pid", help="id of a process")
    options = line.parse_args()
    if not options.cores > 0:
        line.error(f"cores is {options.cores:g}: give more than 0")
    # Behind the processes that it limits it could not stop them.
    go_first()
    try:
        done = limit(options.pids, options.cores)
    except OSError as error:
        line.error(f"{error}: give processes that run")
    print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    main()
