"""Scenarios in processes of their own, several at a time: most of a scenario's time is waiting."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from experiments.faults.carry_out import ScenarioOutcome
from experiments.run.chain import clean_environment
from pipeline import lifecycle
from pipeline.errors import EmoStreamError

T = TypeVar("T")
LONGEST_S = 3600.0
ENDS_S = 120.0
"""How long a process may take to end its chain."""


class Done(NamedTuple):
    """What a process left: the outcomes of its scenarios, and the lines that it printed."""

    outcomes: list[ScenarioOutcome]
    lines: list[str]


class Apart:
    """Carries out scenarios in processes of their own. Those that run when it is left are ended. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saying = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ending = False

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ending = True
            running = list(self._running)
        for each in running:
            each.terminate()
        until_s = time.monotonic() + ENDS_S
        for each in running:
            try:
                each.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                each.kill()

    def run(
        self,
        names: Sequence[str],
        seed: int,
        *,
        full: bool,
        folder: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> Done:
        """Carry out scenarios one after the other, with the packages in `folder` or else these; say what is printed.

        Raises EmoStreamError, with the last lines, if the process left no outcomes.
        """
        with tempfile.TemporaryDirectory(prefix="emostream-faults-") as scratch:
            written = Path(scratch) / "outcomes.json"
            command = [sys.executable, "-m", "experiments.faults", "--seed", str(seed), "--outcomes", str(written)]
            process = self._started([*command, *(["--full"] if full else []), *names], folder)
            late = threading.Timer(LONGEST_S, process.kill)
            late.start()
            try:
                lines = self._lines(process, say)
            finally:
                late.cancel()
                # It has ended, unless what it printed could not be said.
                process.terminate()
                process.wait()
                with self._lock:
                    self._running.discard(process)
            if not written.exists():
                last = "".join(f"\n  {line}" for line in lines[-5:])
                raise EmoStreamError(f"{', '.join(names)} (seed {seed}) ended with {process.returncode}:{last}")
            return Done([ScenarioOutcome(**each) for each in json.loads(written.read_text(encoding="utf-8"))], lines)

    def _started(self, command: Sequence[str], folder: Path | None) -> subprocess.Popen[str]:
        own = {} if folder is None else {"PYTHONPATH": str(folder)}
        with self._lock:
            if self._ending:
                raise EmoStreamError("the fault suite was interrupted")
            # In a session of its own: Ctrl-C would reach it twice, by the terminal and by us.
            process = subprocess.Popen(
                command, cwd=folder, env={**clean_environment(), **lifecycle.as_parent(), **own},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                errors="replace", start_new_session=True,
            )  # fmt: skip
            self._running.add(process)
        return process

    def _lines(self, process: subprocess.Popen[str], say: Callable[[str], None]) -> list[str]:
        """Return what a process prints; say each line together with the indented ones below it."""
        lines: list[str] = []
        said = 0

        def say_rest() -> None:
            nonlocal said
            if said < len(lines):
                with self._saying:
                    say("\n".join(lines[said:]))
                said = len(lines)

        assert process.stdout is not None
        with process.stdout:
            for text in process.stdout:
                if not text.startswith(" "):
                    say_rest()
                lines.append(text.rstrip())
        say_rest()
        return lines


def side_by_side(tasks: Iterable[Callable[[Apart], T]], at_a_time: int) -> list[T]:
    """Do the tasks, so many at a time; return their results in their order. The first error ends what runs."""
    with ThreadPoolExecutor(at_a_time) as threads, Apart() as apart:
        begun = [threads.submit(task, apart) for task in tasks]
        for each in wait(begun, return_when=FIRST_EXCEPTION).done:
            each.result()
        return [each.result() for each in begun]
