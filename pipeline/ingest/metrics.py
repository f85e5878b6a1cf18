"""Ingest's metrics.

Accepted requests do not pay for them: the flusher's thread copies the buffer's figures once per flush; only a refusal
is counted at once. So a worker's figures are at most one flush interval old when another worker is scraped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram, Metric

from pipeline.metrics import workers
from pipeline.openapi.ingest import KINDS

FLUSH_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
FLUSH_BUCKETS_REACTIONS = (1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)


def reason_of(title: str) -> str:
    """Return the label of the refusals with this title."""
    return title.lower().replace("/", "_").replace(" ", "_")


# Ingest's own refusals; Flask's own errors count under the name of their HTTP status.
REASONS = tuple(reason_of(kind.title) for kind in KINDS)


class BufferFigures(Protocol):
    """The figures that a buffer keeps."""

    limit: int
    accepted: int

    def __len__(self) -> int:
        """Return the number of waiting reactions."""


class SinkFigures(Protocol):
    """The figures that a sink keeps."""

    lost: int
    errors: int


class Meters:
    """One worker's figures; `silent_s()` is the time that the current flush has waited for Kafka."""

    def __init__(self, buffer: BufferFigures, silent_s: Callable[[], float]) -> None:
        self._buffer = buffer
        self._silent_s = silent_s
        self._lock = threading.Lock()
        self._copied: dict[Counter, int] = {}
        self._accepted = Counter("emostream_ingest_reactions_accepted", "Reactions answered with 202.", registry=None)
        self._lost = Counter(
            "emostream_ingest_reactions_lost", "Accepted reactions that Kafka refused permanently.", registry=None
        )
        self._errors = Counter("emostream_ingest_kafka_errors", "Failed or broken connections to Kafka.", registry=None)
        self._refused = Counter(
            "emostream_ingest_requests_refused",
            "Requests answered with an error, by reason.",
            ["reason"],
            registry=None,
        )
        self._waiting = Gauge(
            "emostream_ingest_buffer_reactions",
            "Reactions that wait for Kafka, including those of the current flush.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._limit = Gauge(
            "emostream_ingest_buffer_limit_reactions",
            "Most reactions that may wait: buffer_max, summed over all workers.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._silence = Gauge(
            "emostream_ingest_kafka_silence_seconds",
            "Time that the current flush has waited for Kafka; the maximum over all workers.",
            registry=None,
            multiprocess_mode="livemax",
        )
        self._workers = Gauge(
            "emostream_ingest_workers", "Live worker processes.", registry=None, multiprocess_mode="livesum"
        )
        self._seconds = Histogram(
            "emostream_ingest_flush_seconds",
            "Time from the start of a flush until Kafka acknowledged its last reaction.",
            registry=None,
            buckets=FLUSH_BUCKETS_S,
        )
        self._sizes = Histogram(
            "emostream_ingest_flush_reactions",
            "Reactions per flush.",
            registry=None,
            buckets=FLUSH_BUCKETS_REACTIONS,
        )
        for reason in REASONS:
            self._refused.labels(reason)
        self._limit.set(buffer.limit)
        self._workers.set(1)

    def refused(self, title: str) -> None:
        """Count a request that was refused, by the title of its problem document."""
        self._refused.labels(reason_of(title)).inc()

    def flushed(self, reactions: int, took_s: float) -> None:
        """Count a flush that Kafka has acknowledged."""
        self._seconds.observe(took_s)
        self._sizes.observe(reactions)

    def refresh(self, sink: SinkFigures | None = None) -> None:
        """Copy the figures of the buffer, and of `sink` if given."""
        # The flusher's thread and a scrape's thread both call this.
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
        counter.inc(to - self._copied.get(counter, 0))
        self._copied[counter] = to
