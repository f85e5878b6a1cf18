"""A limit on what one sender, a user or an address, may send."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from pipeline.units import NS_PER_S


class RateLimit:
    """Counts each sender's cost in fixed windows of `window_s` seconds of the clock. Every worker has its own count.

    Memory is bounded by the senders of one window. The `limits` package was measured and not used: its memory storage
    starts a thread every 10 ms that checks every user. With it a worker accepted 0.51 of the requests per second of a
    hello route, with this class 0.66 (`make bench SUITE=ingest`).
    """

    def __init__(self, most: int, window_s: int = 1) -> None:
        """`most` is the highest cost of a sender per window; 0 means no limit."""
        self.most = most
        self._window_ns = window_s * NS_PER_S
        self._window = 0
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def hit(self, sender: str, cost: int, now_ns: int) -> bool:
        """Count `cost` and return True; over the limit count nothing and return False."""
        return self.first_over({sender: cost}, now_ns) is None

    def first_over(self, costs: Mapping[str, int], now_ns: int) -> str | None:
        """Count the cost of each sender and return None; if one is over the limit count nothing and return its name."""
        if not self.most:
            return None
        with self._lock:
            window = now_ns // self._window_ns
            if window != self._window:
                self._window = window
                self._counts.clear()
            counts = {sender: self._counts.get(sender, 0) + cost for sender, cost in costs.items()}
            for sender, count in counts.items():
                if count > self.most:
                    return sender
            self._counts.update(counts)
            return None

    def wait_s(self, now_ns: int) -> int:
        """Return the time until the next window, in whole seconds, at least 1."""
        return -(-(self._window_ns - now_ns % self._window_ns) // NS_PER_S)
