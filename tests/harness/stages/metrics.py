"""Reading scrapes, and stages to scrape, for tests."""

from __future__ import annotations

from typing import Any

import msgspec
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families as parse

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec, topics
from pipeline.forwarding import Forwarder
from pipeline.ingest.app import create_app as ingest_app
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.reactions import Reactions
from pipeline.main_publisher import for_clusters
from pipeline.messages import TypeCount, Window
from pipeline.metrics.exposition import PATH
from pipeline.settings import Settings

NAMES = topics(Settings())
GOOD = {"user_id": "fan", "emoji_type": "❤", "timestamp": "2026-11-23T09:30:00Z"}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def window(number: int, epoch: str = "e", **changes: Any) -> Window:
    """Return a small window; `changes` are fields of `Window`."""
    made = Window(epoch, number, 1, 2, {"emoji-events-0": (number, number)}, 15, [TypeCount("😂", 15, 2)])
    return msgspec.structs.replace(made, **changes)


def scraped(text: bytes) -> Samples:
    """Return every sample of an exposition, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


def at(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample."""
    return samples[name, tuple(sorted(labels.items()))]


class NoSink:
    """A sink that accepts and acknowledges everything at once."""

    lost = errors = 0

    def __init__(self) -> None:
        self.refusals: dict[bytes, str] = {}

    def write(self, values: object) -> None:
        """Accept the records."""

    def wait(self, timeout_s: float) -> int:
        """Return 0: nothing is outstanding."""
        return 0

    def close(self) -> None:
        """Do nothing."""


class Ingest:
    """One ingest worker without its flusher's thread: a test flushes by hand."""

    def __init__(self, **changes: Any) -> None:
        values = msgspec.structs.replace(Settings(), **changes)
        self.buffer = Buffer(values.buffer_max, wake_at=values.flush_batch)
        self.flusher = Flusher(self.buffer, NoSink, flush_ms=60_000, lead_ms=0, aligned=True)
        self.http: FlaskClient = ingest_app(Reactions(values, self.buffer, self.flusher)).test_client()

    def scrape(self) -> Samples:
        """Scrape /metrics."""
        return scraped(self.http.get(PATH).data)


def publisher() -> tuple[MemoryBus, Forwarder]:
    """Return a bus, and a publisher on it from topic `in` to topic `out`."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("in"), TopicSpec("out"))
    return bus, Forwarder("main-publisher", bus, "in", bus, {"out": for_clusters})
