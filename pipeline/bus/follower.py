"""Following a topic from a separate thread: first its history, then new records as they arrive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from pipeline import logs
from pipeline.bus.base import Bus, Reader, Record
from pipeline.bus.records import last_readable
from pipeline.turns import Turns

log = logs.get(__name__)

POLL_S = 0.2
# A consumer reconnects by itself after an outage of the broker; more failures than this have another cause.
FAILURES_MAX = 60
RETRY_S = 1.0

Deliver = Callable[[list[Record], int], object]


class Follower:
    """Reads `topic`, sharing nothing with other readers.

    The follower's own thread calls `deliver(records, received_ns)` for one batch after the other, in order, and
    `failed(error)` once if it gives up reading. Records at the end of the history may be delivered twice. `turns` says
    whether the thread goes on: it comes round five times a second, also while Kafka is away.
    """

    def __init__(self, bus: Bus, topic: str, failed: Callable[[BaseException], None]) -> None:
        self._bus = bus
        self._topic = topic
        self._failed = failed
        self._stop = threading.Event()
        self._reader: Reader | None = None
        self.turns = Turns()
        self._thread: threading.Thread | None = None

    def history(self, count: int) -> list[Record]:
        """Return the last `count` records; `start` then delivers the records after them."""
        ends = self._bus.ends(self._topic)
        records = self._bus.tail(self._topic, count)
        self._reader = self._bus.reader(self._topic, ends)
        return records

    def readable_history(
        self,
        count: int,
        decode: Callable[[bytes | None], object],
        skipped: Callable[[Record, str], object],
    ) -> list[Record]:
        """Return the last `count` records that `decode` can read, as `last_readable` finds them; see `history`."""
        ends = self._bus.ends(self._topic)
        found = last_readable(self._bus, self._topic, count, decode, skipped)
        self._reader = self._bus.reader(self._topic, ends)
        return [record for record, _ in found]

    def whole_history(self) -> Iterator[Record]:
        """Yield every record, without holding them all; `start` then delivers the records after them."""
        ends = self._bus.ends(self._topic)
        yield from self._bus.records(self._topic, ends)
        self._reader = self._bus.reader(self._topic, ends)

    def start(self, deliver: Deliver) -> None:
        """Start delivering: after the history, or from the oldest record if no history was asked for."""
        reader = self._reader or self._bus.reader(self._topic)
        self._thread = threading.Thread(
            target=self._run, args=(reader, deliver), name=f"follow-{self._topic}", daemon=True
        )
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop the thread, wait for it, and close the connection."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        elif self._reader is not None:
            self._reader.close()

    def _run(self, reader: Reader, deliver: Deliver) -> None:
        failures = 0
        try:
            while not self._stop.is_set():
                self.turns.mark()
                try:
                    records = reader.poll(POLL_S)
                    failures = 0
                except Exception as error:
                    failures += 1
                    if failures > FAILURES_MAX:
                        raise
                    log.warning("reading failed", topic=self._topic, failures=failures, error=str(error))
                    self._stop.wait(RETRY_S)
                    continue
                if records:
                    deliver(records, time.time_ns())
        except Exception as error:
            # While stopping, the event loop that records are delivered to may be closed already.
            if not self._stop.is_set():
                log.exception("gave up following", topic=self._topic)
                self._failed(error)
        finally:
            self.turns.rest()
            reader.close()
