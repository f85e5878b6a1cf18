"""The registry's own clock, by which subscribers are live and clients are idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipeline.units import NS_PER_S

STILL_NS = 2 * NS_PER_S


class SteadyClock:
    """Nanoseconds since the epoch at its start, which then advance by what this process saw pass.

    The wall clock may jump, and a suspended machine or a stopped process sees nothing for hours. Then clients that
    hold a stream were idle by the wall clock, and would be forgotten. So the monotonic clock counts, and between two
    calls STILL_NS at most. The registry calls it every second.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._now_ns = wall_ns()
        self._last_ns = monotonic_ns()

    def __call__(self) -> int:
        """Return the time."""
        with self._lock:
            last_ns, self._last_ns = self._last_ns, self._monotonic_ns()
            self._now_ns += min(STILL_NS, self._last_ns - last_ns)
            return self._now_ns
