"""A limit on what one sender, a user or an address, may send."""

from __future__ import annotations

import ipaddress
import mmap
import threading
from collections.abc import Mapping
from functools import lru_cache

from pipeline.units import NS_PER_S

COUNT_MAX = 65_535
"""The highest limit: a count has 16 bits."""
_SLOTS = 1 << 17
_PROBES = 16
_KNOWN_MAX = 10_000


class RateLimit:
    """Counts each sender's cost in fixed windows of `window_s` seconds of the clock.

    Processes that are forked afterwards share the count: it stands in a table of fixed size, a word of 64 bits for each
    sender of the window (32 bits of its hash, 16 of the window's number, 16 of its count). A word is read and written
    whole. If two processes count the same sender at the same moment, one of the two costs is lost, so that a sender may
    get a little more; a lock that a killed process holds would refuse everybody. A sender for whom a busy table
    has no room is not limited.

    The `limits` package was measured and not used: its memory storage starts a thread every 10 ms that checks every
    user. With it a worker accepted 0.51 of the requests per second of a hello route, with this class 0.66
    (`make bench SUITE=ingest`).
    """

    def __init__(self, most: int, window_s: int = 1) -> None:
        """`most` is the highest cost of a sender per window, at most COUNT_MAX; 0 means no limit."""
        self.most = most
        self._window_ns = window_s * NS_PER_S
        self._table = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("Q")
        self._lock = threading.Lock()

    def hit(self, sender: str, cost: int, now_ns: int) -> bool:
        """Count `cost` and return True; over the limit count nothing and return False."""
        return self.first_over({sender: cost}, now_ns) is None

    def is_over(self, sender: str, cost: int, now_ns: int) -> bool:
        """Return whether `hit` would refuse, and count nothing."""
        if not self.most:
            return False
        with self._lock:
            slot = self._slot(sender, self._window(now_ns))
            return (self._table[slot] & 0xFFFF if slot is not None else 0) + cost > self.most

    def first_over(self, costs: Mapping[str, int], now_ns: int) -> str | None:
        """Count the cost of each sender and return None; if one is over the limit count nothing and return its name."""
        if not self.most:
            return None
        window = self._window(now_ns)
        with self._lock:
            table, counted = self._table, []
            for sender, cost in costs.items():
                slot = self._slot(sender, window)
                word = table[slot] if slot is not None else 0
                if (word & 0xFFFF) + cost > self.most:
                    return sender
                counted.append((slot, word + cost))
            for slot, word in counted:
                if slot is not None:
                    table[slot] = word
            return None

    def _window(self, now_ns: int) -> int:
        return (now_ns // self._window_ns & 0xFFFF) << 16

    def _slot(self, sender: str, window: int) -> int | None:
        """Return the slot of a sender in a window, which is its own from now on; None if there is no room."""
        # Forks have the same seed of `hash`.
        hashed = hash(sender)
        mine = (hashed & 0xFFFFFFFF) << 32 | window
        first = hashed >> 32
        for probe in range(_PROBES):
            slot = (first + probe) % _SLOTS
            word = self._table[slot]
            if word & ~0xFFFF == mine:
                return slot
            if word & 0xFFFF0000 != window or not word:
                self._table[slot] = mine
                return slot
        return None

    def wait_s(self, now_ns: int) -> int:
        """Return the time until the next window, in whole seconds, at least 1."""
        return -(-(self._window_ns - now_ns % self._window_ns) // NS_PER_S)


@lru_cache(_KNOWN_MAX)
def sender_of(address: str) -> str:
    """Return the sender that requests from `address` are counted for: an IPv4 address, or the /64 of an IPv6 address.

    One household or machine usually has a whole /64. Each request asks, and to parse an address costs as much as to
    read a reaction.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        # A proxy may write "unknown", or append a port.
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
