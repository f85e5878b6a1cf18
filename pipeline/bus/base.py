"""The interface between stages and Kafka: an append-only log of records per topic.

`KafkaBus` is the real implementation, `MemoryBus` its twin for fast tests; both pass the same contract tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from pipeline.bus.topics import TopicSpec

FLUSH_TIMEOUT_S = 10.0
TAIL_MAX_BYTES = 64 << 20
"""What a `tail` holds at most: a foreign writer may have filled a topic with records of a megabyte each."""


class Record(NamedTuple):
    """One record of a topic. `timestamp_ms` is the broker's append time if the topic is configured so."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Reader(Protocol):
    """Reads every partition of one topic, in order within a partition, sharing nothing with other readers."""

    def poll(self, timeout_s: float) -> list[Record]:
        """Return the next records, or [] if none came within `timeout_s`."""

    def close(self) -> None:
        """Close the connection; polling afterwards is an error."""


class Writer(Protocol):
    """Appends records. All records sent are in the log, in order, once `flush` has returned."""

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Queue one record; a `value` of None is a tombstone."""

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until every record is acknowledged; raise KafkaUnreachableError if one is not."""

    def close(self) -> None:
        """Flush and close the connection."""


class Bus(Protocol):
    """A Kafka, or its in-memory twin."""

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics that do not exist; leave the others unchanged."""

    def reader(self, topic: str, start: Mapping[int, int] | None = None) -> Reader:
        """Return a reader of `topic` from `start` (partition → offset), or from the oldest record kept."""

    def writer(self) -> Writer:
        """Return a writer."""

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record of each partition."""

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return of each partition the offset of its first record and the one after its last."""

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, ends: Mapping[int, int] | None = None
    ) -> list[Record]:
        """Return the records from `start` up to `ends` (exclusive); None: from the first one, to the last one now."""

    def tail(self, topic: str, count: int) -> list[Record]:
        """Return the last `count` records of each partition, or all if there are fewer, oldest first.

        If they have more than TAIL_MAX_BYTES, the oldest are left out.
        """

    def records(self, topic: str, ends: Mapping[int, int], start: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Yield every record from `start`, or from the oldest kept, up to `ends`, without holding them all."""

    def close(self) -> None:
        """Close every connection."""


def newest(records: Iterable[Record]) -> list[Record]:
    """Return the last of `records` that have TAIL_MAX_BYTES in all, without holding more of them at a time."""
    kept: deque[Record] = deque()
    size = 0
    for record in records:
        kept.append(record)
        size += _size(record)
        while size > TAIL_MAX_BYTES:
            size -= _size(kept.popleft())
    return list(kept)


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")
