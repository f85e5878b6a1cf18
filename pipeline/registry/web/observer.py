"""The observer: it reads a chain's state from Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pipeline import logs, settings
from pipeline.bus.base import Bus, Record
from pipeline.bus.follower import Follower
from pipeline.bus.records import keyed, readable
from pipeline.bus.topics import topics
from pipeline.http_messages import OpsData
from pipeline.messages import decode_dead_letter, decode_window
from pipeline.registry.web.alerts import Member
from pipeline.registry.web.status import BATCHES, LETTERS, WINDOWS, ChainStatus
from pipeline.streaming_progress import decode_progress

log = logs.get(__name__)

SAMPLE_S = 2.0


class Observer:
    """Follows windows, Spark's progress and dead letters, and reads the ends of `emoji-events` every two seconds.

    It needs a `bus` of its own: reading the ends uses one connection, which is for one thread. `failed(error)` is
    called from a thread when a topic can no longer be followed.
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
        bus.ensure(names.aggregates, names.progress, names.dead_letters)
        self._bus = bus
        self._events = names.events.name
        self._clock_ns = clock_ns
        self._sample_s = sample_s
        self._lock = threading.Lock()
        self._status = ChainStatus(values.trigger_s)
        self._windows = Follower(bus, names.aggregates.name, failed)
        self._progress = Follower(bus, names.progress.name, failed)
        self._letters = Follower(bus, names.dead_letters.name, failed)
        self._add_letters(self._letters.history(LETTERS))
        self._add_windows(self._windows.history(WINDOWS))
        self._add_progress(self._progress.history(BATCHES))
        self._stop = threading.Event()
        self._sampling = threading.Thread(target=self._sample, name="sample-ends", daemon=True)
        self._windows.start(self._add_windows)
        self._progress.start(self._add_progress)
        self._letters.start(self._add_letters)
        self._sampling.start()

    def document(self, members: Sequence[Member]) -> OpsData:
        """Return the document of `GET /ops/data`, see `ChainStatus.document`."""
        with self._lock:
            return self._status.document(members, self._clock_ns())

    def newest_event_id(self) -> str | None:
        """Return the id of the newest window."""
        with self._lock:
            return self._status.newest_event_id

    def close(self) -> None:
        """Stop following and sampling."""
        self._stop.set()
        self._windows.close()
        self._progress.close()
        self._letters.close()
        self._sampling.join(2.0)

    def _add_windows(self, records: list[Record], _received_ns: int = 0) -> None:
        for _, window in readable(records, decode_window, "window"):
            with self._lock:
                self._status.add_window(window)

    def _add_progress(self, records: list[Record], _received_ns: int = 0) -> None:
        for _, progress in readable(records, decode_progress, "report"):
            with self._lock:
                self._status.add_progress(progress)

    def _add_letters(self, records: list[Record], _received_ns: int = 0) -> None:
        for name, letter in keyed(records, decode_dead_letter, "dead letter"):
            with self._lock:
                self._status.add_letter(name, letter)

    def _sample(self) -> None:
        failing = False
        while not self._stop.is_set():
            try:
                ends = self._bus.ends(self._events)
            except Exception as error:
                # The next attempt may succeed; one warning per outage is enough.
                if not failing:
                    log.warning("the ends of a topic cannot be read", topic=self._events, error=str(error))
                failing = True
                with self._lock:
                    self._status.add_failure(f"the ends of topic {self._events} cannot be read: {error}")
            else:
                failing = False
                with self._lock:
                    self._status.add_ends(ends, self._clock_ns())
            self._stop.wait(self._sample_s)
