"""The bounded buffer between requests and Kafka.

A request only appends. While Kafka is slow or out of reach, the reactions wait here; when the buffer is full, requests
are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future

from pipeline.errors import BufferFullError

RECORD_BYTES = 512
"""What a buffer has room for, for each record that it may hold. Most records have 150 bytes, the largest 1,300."""


class Buffer:
    """At most `limit` records, of `limit_bytes` in all, that wait for the next flush or are part of the current one."""

    def __init__(self, limit: int, wake_at: int, least_bytes: int = 0) -> None:
        """`due` is set when `wake_at` records wait. It has room for RECORD_BYTES per record, and for `least_bytes`."""
        self.limit = limit
        self.limit_bytes = max(limit * RECORD_BYTES, least_bytes)
        self._wake_at = wake_at
        self._bytes = self._bytes_in_flight = 0
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._in_flight = 0
        self._flushed: Future[Mapping[bytes, str]] = Future()
        self._closed = False
        self.accepted = 0
        self.due = threading.Event()

    def add(self, records: list[bytes]) -> Future[Mapping[bytes, str]]:
        """Append all of `records` or none.

        The future ends when Kafka has answered their flush, with the records that it refused permanently, and why.
        Raises BufferFullError when they do not fit, or after `close`.
        """
        size = sum(map(len, records))
        with self._lock:
            if self._closed:
                raise BufferFullError("this worker ends: try again, another one answers then")
            if len(self._waiting) + self._in_flight + len(records) > self.limit:
                raise BufferFullError(
                    f"{len(self._waiting) + self._in_flight} of {self.limit} reactions (buffer_max) wait for Kafka: "
                    "try again later"
                )
            if self._bytes + self._bytes_in_flight + size > self.limit_bytes:
                raise BufferFullError(
                    f"{self._bytes + self._bytes_in_flight} of {self.limit_bytes} bytes ({RECORD_BYTES} for each of "
                    f"buffer_max={self.limit}) wait for Kafka: try again later"
                )
            self._waiting += records
            self._bytes += size
            self.accepted += len(records)
            if len(self._waiting) >= self._wake_at:
                self.due.set()
            return self._flushed

    def close(self) -> None:
        """Accept no more records: nobody would flush them."""
        with self._lock:
            self._closed = True

    def take(self) -> tuple[list[bytes], Future[Mapping[bytes, str]]]:
        """Return the waiting records and their future; records added later belong to the next flush."""
        with self._lock:
            records, self._waiting = self._waiting, []
            future, self._flushed = self._flushed, Future()
            # Added, not set: records that an earlier flush gave up at the end still count.
            self._in_flight += len(records)
            self._bytes_in_flight += self._bytes
            self._bytes = 0
            self.due.clear()
            return records, future

    def done(self) -> None:
        """Free the room of the records that were taken: Kafka has acknowledged them."""
        with self._lock:
            self._in_flight = self._bytes_in_flight = 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting) + self._in_flight
