"""The thread that sends the buffer to Kafka every `flush_ms`.

It takes all waiting records, gives them to the sink, and waits until the sink has acknowledged them: there is at most
one flush at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from pipeline import logs
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.intake import close_record
from pipeline.ingest.metrics import Meters
from pipeline.ingest.sink import EventSink
from pipeline.turns import Turns
from pipeline.units import NS_PER_S

log = logs.get(__name__)

IDLE_MS = 500
REFUSED_S = 5.0
"""How long no reaction is accepted after Kafka has refused one permanently; then a flush tries again."""


def wait_ns(now_ns: int, flush_ms: int, lead_ms: int, aligned: bool) -> int:
    """Return the time until the next flush, in ns.

    Aligned flushes begin `lead_ms` before multiples of `flush_ms` since the epoch. Spark's triggers are on multiples
    too, so a flush's records are in Kafka just before a trigger reads. A free flush comes one interval later, at any
    time of day. With `flush_ms` 0 every reaction wakes the flusher, and this is only its idle interval.
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
        disk: Callable[[], str] = lambda: "",
    ) -> None:
        """`disk` returns why Kafka's disk takes no more reactions, "" if it does: it is asked before each flush."""
        self._buffer = buffer
        self._open_sink = sink
        self._flush_ms = flush_ms
        self._lead_ms = lead_ms
        self._aligned = aligned
        self._clock_ns = clock_ns
        self._disk = disk
        self._stop = threading.Event()
        self._deadline_s = 0.0
        self._waiting_since_s: float | None = None
        self._refused_s = 0.0
        self.disk_full = ""
        """Why Kafka's disk takes no more reactions; empty if it does."""
        self.refusal = ""
        """Why Kafka refused a reaction of the last flush permanently; empty if it took them all."""
        self.meters = Meters(buffer, self.silent_s)
        self.turns = Turns()
        """Whether the thread goes on: it comes round twice a second while a flush waits for Kafka."""
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)

    def start(self) -> None:
        """Start the thread. It opens the sink itself, so that an unreachable broker does not delay the caller."""
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> int:
        """Accept no more records, flush those that wait, and end the thread.

        Returns the number of reactions given up after `timeout_s`.
        """
        self._buffer.close()
        self._deadline_s = time.monotonic() + timeout_s
        self._stop.set()
        self._buffer.due.set()
        self._thread.join(timeout_s + 5)
        return len(self._buffer)

    def silent_s(self) -> float:
        """Return the time that the current flush has been waiting for Kafka, seconds; 0 without one."""
        since = self._waiting_since_s
        return 0.0 if since is None else time.monotonic() - since

    def refuses(self) -> str:
        """Return why Kafka would refuse a reaction now; empty if it would not, or if a flush has to find out."""
        return self.refusal if time.monotonic() - self._refused_s < REFUSED_S else ""

    def _run(self) -> None:
        try:
            self._loop()
        except Exception:
            # A worker that can no longer flush must not accept more reactions: the server starts another worker.
            log.critical("the flusher failed; this worker ends", waiting=len(self._buffer), exc_info=True)
            os._exit(1)

    def _loop(self) -> None:
        sink = self._open_sink()
        while not self._stop.is_set():
            pause_ns = wait_ns(self._clock_ns(), self._flush_ms, self._lead_ms, self._aligned)
            self.turns.rest()
            self._buffer.due.wait(pause_ns / NS_PER_S)
            self.turns.mark()
            self.disk_full = self._disk()
            self._flush(sink)
            self.meters.refresh(sink)
        self._flush(sink)
        sink.close()
        self.turns.rest()
        self.meters.refresh(sink)

    def _flush(self, sink: EventSink) -> None:
        records, future = self._buffer.take()
        if not records:
            future.set_result({})
            return
        self._waiting_since_s = time.monotonic()
        flushed_ns = self._clock_ns()
        sink.write([close_record(record, flushed_ns) for record in records])
        while left := sink.wait(0.5):
            self.turns.mark()
            self.meters.refresh(sink)
            if self._stop.is_set() and time.monotonic() > self._deadline_s:
                log.error("gave up reactions that Kafka did not acknowledge before the end", reactions=left)
                return
        self.meters.flushed(len(records), self.silent_s())
        self._waiting_since_s = None
        self._buffer.done()
        future.set_result(self._refused(sink, records, flushed_ns))

    def _refused(self, sink: EventSink, records: Sequence[bytes], flushed_ns: int) -> dict[bytes, str]:
        """Return the records that Kafka refused permanently, and why; remember a reason for the next requests."""
        self.refusal = next(iter(sink.refusals.values()), "")
        if not self.refusal:
            return {}
        self._refused_s = time.monotonic()
        # Made again, and not kept: a flush may wait for Kafka for minutes, with all its records.
        both = ((record, close_record(record, flushed_ns)) for record in records)
        refused = {record: sink.refusals[value] for record, value in both if value in sink.refusals}
        sink.refusals.clear()
        return refused
