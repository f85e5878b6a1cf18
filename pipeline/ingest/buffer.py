"""The bounded buffer between requests and Kafka, and the thread that flushes it.

A request only appends. The flusher takes everything that waits, hands it to the sink and stays with it until the
sink has acknowledged it: at most one flush is under way, so while Kafka is slow or away the reactions wait here,
where there is a bound, and beyond it requests are refused.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from pipeline import logs
from pipeline.errors import BufferFullError
from pipeline.ingest.intake import close_record
from pipeline.ingest.metrics import Meters

log = logs.get(__name__)

NS = 1_000_000_000
IDLE_MS = 500


class EventSink(Protocol):
    """Where flushes go.

    `lost` counts the values it was refused for good, `errors` the connections that failed it.
    """

    lost: int
    errors: int

    def write(self, values: Sequence[bytes]) -> None:
        """Begin to send `values`, in order."""

    def wait(self, timeout_s: float) -> int:
        """Wait at most so long for acknowledgements; return how many are outstanding."""

    def close(self) -> None:
        """Give the connection back."""


class Buffer:
    """Records waiting for the next flush, at most `limit` of them, counting those under way."""

    def __init__(self, limit: int, wake_at: int) -> None:
        self.limit = limit
        self._wake_at = wake_at
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._in_flight = 0
        self._flushed: Future[None] = Future()
        self.accepted = 0
        self.due = threading.Event()

    def add(self, records: list[bytes]) -> Future[None]:
        """Append all of `records` or none; the future ends when their flush has been acknowledged.

        Raises BufferFullError when they do not fit.
        """
        with self._lock:
            if len(self._waiting) + self._in_flight + len(records) > self.limit:
                raise BufferFullError(
                    f"{len(self._waiting) + self._in_flight} of {self.limit} reactions (buffer_max) wait for Kafka: "
                    "try again later"
                )
            self._waiting += records
            self.accepted += len(records)
            if len(self._waiting) >= self._wake_at:
                self.due.set()
            return self._flushed

    def take(self) -> tuple[list[bytes], Future[None]]:
        """Return what waits and the future its senders hold; what comes later belongs to the next flush."""
        with self._lock:
            records, self._waiting = self._waiting, []
            future, self._flushed = self._flushed, Future()
            # Added, not set: what an earlier flush gave up on at the end is still held.
            self._in_flight += len(records)
            self.due.clear()
            return records, future

    def done(self) -> None:
        """The flush taken last has been acknowledged: its room is free again."""
        with self._lock:
            self._in_flight = 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting) + self._in_flight


def wait_ns(now_ns: int, flush_ms: int, lead_ms: int, aligned: bool) -> int:
    """Return how long to wait for the next flush, in ns.

    Aligned flushes begin `lead_ms` before multiples of `flush_ms` since the epoch. Spark's triggers are on
    multiples too, so what a flush carries is in Kafka just when a trigger looks. A free flush is a whole interval
    away, wherever that falls. With `flush_ms` 0 every reaction wakes the flusher, and this is only its idle round.
    """
    interval_ns = (flush_ms or IDLE_MS) * 1_000_000
    if not aligned or flush_ms == 0:
        return interval_ns
    phase_ns = (now_ns + lead_ms * 1_000_000) % interval_ns
    return interval_ns - phase_ns


class Flusher:
    """The background thread that empties a buffer into a sink every `flush_ms`."""

    def __init__(
        self,
        buffer: Buffer,
        sink: Callable[[], EventSink],
        *,
        flush_ms: int,
        lead_ms: int,
        aligned: bool,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._buffer = buffer
        self._open = sink
        self._flush_ms = flush_ms
        self._lead_ms = lead_ms
        self._aligned = aligned
        self._clock_ns = clock_ns
        self._stop = threading.Event()
        self._deadline_s = 0.0
        self._waiting_since_s: float | None = None
        self.meters = Meters(buffer, self.silent_s)
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)

    def start(self) -> None:
        """Start the thread; the sink is opened in it, so a broker that is away delays nobody."""
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> int:
        """Flush what waits and end the thread; return how many reactions were given up after `timeout_s`."""
        self._deadline_s = time.monotonic() + timeout_s
        self._stop.set()
        self._buffer.due.set()
        self._thread.join(timeout_s + 5)
        return len(self._buffer)

    def silent_s(self) -> float:
        """How long the flush under way has been waiting for Kafka, seconds; 0 when none is."""
        since = self._waiting_since_s
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        try:
            self._loop()
        except Exception:
            # A worker that can no longer flush must not go on accepting: the server starts another.
            log.critical("the flusher failed; this worker ends", waiting=len(self._buffer), exc_info=True)
            os._exit(1)

    def _loop(self) -> None:
        sink = self._open()
        while not self._stop.is_set():
            pause_ns = wait_ns(self._clock_ns(), self._flush_ms, self._lead_ms, self._aligned)
            self._buffer.due.wait(pause_ns / NS)
            self._flush(sink)
            self.meters.refresh(sink)
        self._flush(sink)
        sink.close()
        self.meters.refresh(sink)

    def _flush(self, sink: EventSink) -> None:
        records, future = self._buffer.take()
        if not records:
            future.set_result(None)
            return
        self._waiting_since_s = time.monotonic()
        flushed_ns = self._clock_ns()
        sink.write([close_record(record, flushed_ns) for record in records])
        while left := sink.wait(0.5):
            self.meters.refresh(sink)
            if self._stop.is_set() and time.monotonic() > self._deadline_s:
                log.error("gave up on reactions Kafka did not take before the end", reactions=left)
                return
        self.meters.flushed(len(records), self.silent_s())
        self._waiting_since_s = None
        self._buffer.done()
        future.set_result(None)
