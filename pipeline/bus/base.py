"""The seam between stages and Kafka: an append-only log of records by topic.

`KafkaBus` is the real part, `MemoryBus` its twin for fast tests; both pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pipeline.bus.topics import TopicSpec


class Record(NamedTuple):
    """One record of a topic. `timestamp_ms` is the broker's append time where the topic says so."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Reader(Protocol):
    """Reads every partition of one topic, in order within a partition, sharing nothing with other readers."""

    def poll(self, timeout_s: float) -> list[Record]:
        """Return the next records, or [] when none came within `timeout_s`."""

    def close(self) -> None:
        """Give the connection back; polling afterwards is an error."""


class Writer(Protocol):
    """Appends records. What `send` took is in the log, in order, once `flush` has returned."""

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Queue one record; a null `value` is a tombstone."""

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until all is acknowledged. Raises KafkaUnreachableError if one record was not."""

    def close(self) -> None:
        """Flush and give the connection back."""


class Bus(Protocol):
    """A Kafka, or what stands for it in a unit test."""

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics that do not exist; leave the others as they are."""

    def reader(self, topic: str, start: Mapping[int, int] | None = None) -> Reader:
        """Return a reader of `topic` from `start` (partition → offset), or from the oldest record kept."""

    def writer(self) -> Writer:
        """Return a writer."""

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record of each partition."""

    def tail(self, topic: str, count: int) -> list[Record]:
        """Return the last `count` records of each partition, oldest first; fewer where there are fewer."""

    def close(self) -> None:
        """Give every connection back."""
