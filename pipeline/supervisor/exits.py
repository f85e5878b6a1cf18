"""How a process ended: by which status or signal, and whether the system was out of memory."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

# Linux counts here how many processes it has killed for lack of memory, those of containers included.
VMSTAT = Path("/proc/vmstat")
# A stage may outlive its JVM by some seconds.
OUT_OF_MEMORY_S = 10.0


def exit_name(code: int) -> str:
    """Return `SIGKILL` for -9, `exit status 1` for 1."""
    try:
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"
    except ValueError:
        # A real-time signal has no name.
        return f"signal {-code}"


class OutOfMemory:
    """Notices, if asked regularly, when the kernel kills a process of this machine for lack of memory."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._kills = _kills()
        self._seen_s = float("-inf")

    def sample(self) -> bool:
        """Return whether a process was killed within the last OUT_OF_MEMORY_S seconds, or since the last call."""
        kills = _kills()
        if kills > self._kills:
            self._seen_s = self._clock_s()
        self._kills = kills
        return self._clock_s() - self._seen_s <= OUT_OF_MEMORY_S


def _kills() -> int:
    """Return how many processes the kernel has killed; 0 on a system that does not count them."""
    try:
        lines = VMSTAT.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
