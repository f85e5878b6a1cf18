"""Progress on standard error: a bar on a terminal; elsewhere a line at each new activity and every ten seconds."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

LINE_S = 10.0
BAR_S = 1.0
BAR = "{desc:<28} {bar} {percentage:3.0f} %, {elapsed} so far, about {left} left"
# Set for a notebook's kernel, whose standard error another process shows on a terminal.
ON_TERMINAL = "EXPERIMENTS_ON_TERMINAL"


class Progress:
    """What a command does, how far it is and how long it still takes, of the `total_s` seconds that are planned.

    The part that is done grows with the time, but not beyond what was expected of the current activity.
    """

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._words = ""
        self._begun_s = self._since_s = time.monotonic()
        self._done_s = self._upto_s = 0.0
        terminal = sys.stderr.isatty() or bool(os.environ.get(ON_TERMINAL))
        self._bar = _Bar(total=total_s, bar_format=BAR, file=sys.stderr) if terminal else None
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._changed.set()
        self._thread.join()
        if self._bar is None:
            if kind is None:
                write(f"done after {_interval(time.monotonic() - self._begun_s)}")
            return
        if kind is None:
            self._bar.n = self._total_s
            self._bar.set_description_str("done")
        self._bar.close()

    def begin(self, words: str, expected_s: float) -> None:
        """Show a new activity that should take `expected_s`; what was expected of the one before it is done."""
        self._set(words, self._upto_s, self._upto_s + expected_s, shown=True)

    def at(self, words: str, done_s: float) -> None:
        """Show an activity, and `done_s` of the total as done."""
        self._set(words, done_s, done_s, shown=words != self._words)

    def note(self, text: str) -> None:
        """Write a line that stays."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            write(text)

    def _set(self, words: str, done_s: float, upto_s: float, shown: bool) -> None:
        with self._lock:
            self._words, self._since_s, self._done_s, self._upto_s = words, time.monotonic(), done_s, upto_s
            # More to do than was planned, such as a run that is repeated.
            self._total_s = max(self._total_s, upto_s)
        if shown:
            self._show()
            self._changed.set()

    def _tick(self) -> None:
        while not self._stop.is_set():
            if self._changed.wait(LINE_S if self._bar is None else BAR_S):
                self._changed.clear()
            else:
                self._show()

    def _show(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            words = self._words
            done_s = min(self._done_s + now_s - self._since_s, self._upto_s, self._total_s)
        if self._bar is not None:
            self._bar.n, self._bar.total = done_s, self._total_s
            self._bar.set_description_str(words)
        else:
            spent, left = _interval(now_s - self._begun_s), _interval(self._total_s - done_s)
            write(f"{words}: {100 * done_s / self._total_s:.0f} %, {spent} so far, about {left} left")


class _Bar(tqdm):  # type: ignore[type-arg]
    @property
    def format_dict(self) -> dict[str, Any]:
        """Add the time left: the total is in seconds. tqdm's own estimate is wrong while an activity takes longer."""
        values = super().format_dict
        return {**values, "left": _interval(values["total"] - values["n"])}


@contextmanager
def shown_by(stream: TextIO) -> Iterator[None]:
    """Have processes that start meanwhile show their progress as fits `stream`, to which their errors are passed on."""
    before = os.environ.get(ON_TERMINAL, "")
    os.environ[ON_TERMINAL] = "1" if stream.isatty() else ""
    try:
        yield
    finally:
        os.environ[ON_TERMINAL] = before


def _interval(seconds: float) -> str:
    return str(tqdm.format_interval(round(seconds)))


def write(text: str, stream: TextIO | None = None) -> None:
    """Write a line with the time of day, by default to standard error."""
    stream = stream or sys.stderr
    stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    stream.flush()
