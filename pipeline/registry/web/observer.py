"""The observer: what carries the account of a chain from Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pipeline import logs, settings
from pipeline.bus.base import Bus, Record
from pipeline.bus.follower import Follower
from pipeline.bus.records import readable
from pipeline.bus.topics import topics
from pipeline.messages import decode_window
from pipeline.registry.web.alerts import Member
from pipeline.registry.web.status import BATCHES, WINDOWS, ChainStatus
from pipeline.streaming_progress import decode_progress

log = logs.get(__name__)

SAMPLE_S = 2.0


class Observer:
    """Follows the windows and Spark's reports, and looks up the ends of `emoji-events` every two seconds.

    `bus` is its own: look-ups share one connection, which is for one thread. `failed(error)` is called from a thread
    when a topic can no longer be followed.
    """

    def __init__(
        self,
        bus: Bus,
        values: settings.Settings,
        failed: Callable[[BaseException], None],
        clock_ns: Callable[[], int] = time.time_ns,
        sample_s: float = SAMPLE_S,
    ) -> None:
        names = topics(values)
        bus.ensure(names.aggregates, names.progress)
        self._bus = bus
        self._events = names.events.name
        self._clock_ns = clock_ns
        self._sample_s = sample_s
        self._lock = threading.Lock()
        self._account = ChainStatus(values.trigger_s)
        self._windows = Follower(bus, names.aggregates.name, failed)
        self._reports = Follower(bus, names.progress.name, failed)
        self._hear_windows(self._windows.history(WINDOWS))
        self._hear_reports(self._reports.history(BATCHES))
        self._stop = threading.Event()
        self._sampling = threading.Thread(target=self._sample, name="sample-ends", daemon=True)
        self._windows.start(self._hear_windows)
        self._reports.start(self._hear_reports)
        self._sampling.start()

    def document(self, members: Sequence[Member]) -> dict[str, Any]:
        """Return what `GET /ops/data` answers, see `ChainStatus.document`."""
        with self._lock:
            return self._account.document(members, self._clock_ns())

    def newest_event_id(self) -> str | None:
        """The id of the newest window."""
        with self._lock:
            return self._account.newest_event_id

    def close(self) -> None:
        """Stop following and sampling."""
        self._stop.set()
        self._windows.close()
        self._reports.close()
        self._sampling.join(2.0)

    def _hear_windows(self, records: list[Record], _received_ns: int = 0) -> None:
        for _, window in readable(records, decode_window, "window"):
            with self._lock:
                self._account.take_window(window)

    def _hear_reports(self, records: list[Record], _received_ns: int = 0) -> None:
        for _, report in readable(records, decode_progress, "report"):
            with self._lock:
                self._account.take_report(report)

    def _sample(self) -> None:
        out = False
        while not self._stop.is_set():
            try:
                ends = self._bus.ends(self._events)
            except Exception as error:
                # Whatever it is, the next look may do better; said once an outage.
                if not out:
                    log.warning("the ends of a topic are not known", topic=self._events, error=str(error))
                out = True
                with self._lock:
                    self._account.take_failure(f"the ends of {self._events} are not known: {error}")
            else:
                out = False
                with self._lock:
                    self._account.take_ends(ends, self._clock_ns())
            self._stop.wait(self._sample_s)
