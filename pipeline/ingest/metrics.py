"""What ingest tells of itself.

No request pays for it: the flusher's thread copies the buffer's own figures once a flush, and only a refusal is
counted as it happens. So a worker's figures are at most one flush interval old when another is asked for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram, Metric

from pipeline.metrics import workers

FLUSH_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
FLUSH_BUCKETS_REACTIONS = (1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
# The titles of our own refusals; what the server itself refuses comes with the HTTP status' name.
REASONS = (
    *("not_application_json", "not_json", "not_a_reaction", "body_too_large", "array_too_long"),
    *("too_many_reactions", "buffer_full", "kafka_is_out_of_reach", "kafka_did_not_acknowledge"),
)


class Counted(Protocol):
    """What a buffer knows of itself."""

    limit: int
    accepted: int

    def __len__(self) -> int:
        """How many reactions wait."""


class Source(Protocol):
    """What a sink knows of itself."""

    lost: int
    errors: int


class Meters:
    """One worker's figures; `silent_s()` is how long a flush has waited for Kafka."""

    def __init__(self, buffer: Counted, silent_s: Callable[[], float]) -> None:
        self._buffer = buffer
        self._silent_s = silent_s
        self._lock = threading.Lock()
        self._told: dict[Counter, int] = {}
        self._accepted = Counter("emostream_ingest_reactions_accepted", "Reactions answered with 202.", registry=None)
        self._lost = Counter(
            "emostream_ingest_reactions_lost", "Accepted reactions that Kafka refused for good.", registry=None
        )
        self._errors = Counter(
            "emostream_ingest_kafka_errors", "Connections to Kafka that failed or broke.", registry=None
        )
        self._refused = Counter(
            "emostream_ingest_requests_refused",
            "Requests answered with an error, by reason.",
            ["reason"],
            registry=None,
        )
        self._waiting = Gauge(
            "emostream_ingest_buffer_reactions",
            "Reactions that wait for Kafka, those of a flush under way included.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._limit = Gauge(
            "emostream_ingest_buffer_limit_reactions",
            "Reactions that may wait (buffer_max, over all workers).",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._silence = Gauge(
            "emostream_ingest_kafka_silence_seconds",
            "How long the flush under way has waited for Kafka; the longest of all workers.",
            registry=None,
            multiprocess_mode="livemax",
        )
        self._workers = Gauge(
            "emostream_ingest_workers", "Worker processes alive.", registry=None, multiprocess_mode="livesum"
        )
        self._seconds = Histogram(
            "emostream_ingest_flush_seconds",
            "From the beginning of a flush until Kafka acknowledged the last of it.",
            registry=None,
            buckets=FLUSH_BUCKETS_S,
        )
        self._sizes = Histogram(
            "emostream_ingest_flush_reactions",
            "Reactions a flush carried.",
            registry=None,
            buckets=FLUSH_BUCKETS_REACTIONS,
        )
        for reason in REASONS:
            self._refused.labels(reason)
        self._limit.set(buffer.limit)
        self._workers.set(1)

    def refused(self, title: str) -> None:
        """Count a request that was refused, by the title of its problem document."""
        self._refused.labels(title.lower().replace("/", "_").replace(" ", "_")).inc()

    def flushed(self, reactions: int, took_s: float) -> None:
        """Count a flush that Kafka has acknowledged."""
        self._seconds.observe(took_s)
        self._sizes.observe(reactions)

    def refresh(self, sink: Source | None = None) -> None:
        """Copy the figures of the buffer, and of its `sink` if that is at hand."""
        # By the flusher's thread and by that of a scrape.
        with self._lock:
            self._raise(self._accepted, self._buffer.accepted)
            if sink is not None:
                self._raise(self._lost, sink.lost)
                self._raise(self._errors, sink.errors)
            self._waiting.set(len(self._buffer))
            self._silence.set(self._silent_s())

    def collect(self) -> Iterable[Metric]:
        """Return the figures of all workers."""
        self.refresh()
        return workers.summed(
            (
                *(self._accepted, self._lost, self._errors, self._refused, self._waiting, self._limit),
                *(self._silence, self._workers, self._seconds, self._sizes),
            )
        )

    def _raise(self, counter: Counter, to: int) -> None:
        counter.inc(to - self._told.get(counter, 0))
        self._told[counter] = to
