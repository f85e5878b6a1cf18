"""How much one user, or one address, may send."""

from __future__ import annotations

import threading

NS = 1_000_000_000


class RateLimit:
    """Counts what each sender sends by the second of the clock, or by `window_s` of them; a worker keeps its own count.

    Memory is bounded by the senders of one such time. The `limits` package was measured and left: its memory storage
    starts a thread every 10 ms that looks at every user. With it a worker accepted 0.51 of what a hello route answers,
    with this 0.66 (`make bench SUITE=ingest`).
    """

    def __init__(self, most: int, window_s: int = 1) -> None:
        """`most` is what a sender may send in `window_s`; 0 means no limit."""
        self.most = most
        self._window_ns = window_s * NS
        self._window = 0
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def hit(self, sender: str, cost: int, now_ns: int) -> bool:
        """Count `cost` and return True, or return False, counting nothing, when it is too much."""
        if not self.most:
            return True
        with self._lock:
            window = now_ns // self._window_ns
            if window != self._window:
                self._window = window
                self._counts.clear()
            count = self._counts.get(sender, 0) + cost
            if count > self.most:
                return False
            self._counts[sender] = count
            return True

    def wait_s(self, now_ns: int) -> int:
        """Seconds, at least 1, until everyone may send again."""
        return -(-(self._window_ns - now_ns % self._window_ns) // NS)
