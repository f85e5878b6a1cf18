"""Whether a loop goes on: how long it has not come round."""

from __future__ import annotations

import time

STALLED_S = 20.0
"""A loop that has not come round for this long does nothing: each does at least every ten seconds, but for a machine
that is busy.
"""


class Turns:
    """Set by the thread of a loop, read by any other."""

    def __init__(self) -> None:
        self._last_s: float | None = None

    def mark(self) -> None:
        """Note that the loop has come round."""
        self._last_s = time.monotonic()

    def rest(self) -> None:
        """Note that the loop does not run."""
        self._last_s = None

    def stalled_s(self) -> float:
        """Return the time since the last turn, seconds; 0 while the loop does not run."""
        last_s = self._last_s
        return 0.0 if last_s is None else time.monotonic() - last_s
