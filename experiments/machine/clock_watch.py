"""A watch on the clock during a run."""

from __future__ import annotations

import threading
import time

CLOCK_SAMPLE_S = 1.0


class ClockWatch:
    """Samples (time_ns, monotonic_ns) pairs while it is entered; `samples` shows whether the clock stepped."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock-watch", daemon=True)

    def __enter__(self) -> ClockWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.samples.append(_pair())
            if self._stop.wait(CLOCK_SAMPLE_S):
                self.samples.append(_pair())
                return


def _pair() -> tuple[int, int]:
    """Read both clocks at once: the closest of a few tries, so that a preemption between the reads is not a step."""
    tries = []
    for _ in range(5):
        before_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        after_ns = time.monotonic_ns()
        tries.append((after_ns - before_ns, wall_ns, (before_ns + after_ns) // 2))
    _, wall_ns, monotonic_ns = min(tries)
    return wall_ns, monotonic_ns
