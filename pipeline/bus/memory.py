"""An in-memory log for unit tests: the twin of `KafkaBus` within one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

from pipeline.bus.base import FLUSH_TIMEOUT_S, Record, newest
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError


class MemoryBus:
    """Keeps every record of every topic in lists; all readers wait on one condition."""

    def __init__(self) -> None:
        self._topics: dict[str, list[list[Record]]] = {}
        self._changed = threading.Condition()

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics that do not exist."""
        with self._changed:
            for spec in specs:
                self._topics.setdefault(spec.name, [[] for _ in range(spec.partitions)])

    def reader(self, topic: str, start: Mapping[int, int] | None = None) -> MemoryReader:
        """Return a reader from `start`, or from the oldest record."""
        count = len(self._topics[topic])
        return MemoryReader(self._topics[topic], self._changed, {p: (start or {}).get(p, 0) for p in range(count)})

    def writer(self) -> MemoryWriter:
        """Return a writer that appends at once."""
        return MemoryWriter(self._topics, self._changed)

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record of each partition."""
        with self._changed:
            if topic not in self._topics:
                raise KafkaUnreachableError(f"topic {topic!r} does not exist")
            return {p: len(records) for p, records in enumerate(self._topics[topic])}

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return of each partition 0, the offset of its first record, and the offset after its last."""
        return {number: (0, end) for number, end in self.ends(topic).items()}

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, ends: Mapping[int, int] | None = None
    ) -> list[Record]:
        """Return the records from `start` up to `ends`."""
        return list(self.records(topic, self.ends(topic) if ends is None else ends, start))

    def tail(self, topic: str, count: int) -> list[Record]:
        """Return the last `count` records of each partition, those of TAIL_MAX_BYTES at most."""
        with self._changed:
            kept = [records[max(0, len(records) - count) :] for records in self._topics[topic]]
        return newest(record for records in kept for record in records)

    def records(self, topic: str, ends: Mapping[int, int], start: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Yield every record from `start`, or from the oldest, up to `ends`."""
        first = start or {}
        with self._changed:
            partitions = [records[first.get(p, 0) : ends.get(p, 0)] for p, records in enumerate(self._topics[topic])]
        yield from (record for records in partitions for record in records)

    def close(self) -> None:
        """Do nothing: there is no connection."""


class MemoryReader:
    """Reads one topic of a MemoryBus."""

    def __init__(self, partitions: list[list[Record]], changed: threading.Condition, positions: dict[int, int]) -> None:
        self._partitions = partitions
        self._changed = changed
        self._positions = positions

    def poll(self, timeout_s: float) -> list[Record]:
        """Return the records appended since the last poll."""
        with self._changed:
            self._changed.wait_for(self._behind, timeout_s)
            records = []
            for partition, position in self._positions.items():
                new = self._partitions[partition][position:]
                records += new
                self._positions[partition] = position + len(new)
            return records

    def _behind(self) -> bool:
        return any(len(self._partitions[p]) > position for p, position in self._positions.items())

    def close(self) -> None:
        """Do nothing: there is no connection."""


class MemoryWriter:
    """Appends to a MemoryBus; a keyed record goes to its key's partition."""

    def __init__(self, topics: dict[str, list[list[Record]]], changed: threading.Condition) -> None:
        self._topics = topics
        self._changed = changed

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Append one record."""
        with self._changed:
            partitions = self._topics[topic]
            partition = 0 if key is None else hash(key) % len(partitions)
            records = partitions[partition]
            records.append(Record(partition, len(records), time.time_ns() // 1_000_000, key, value))
            self._changed.notify_all()

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Do nothing: every record is in the log already."""

    def close(self) -> None:
        """Do nothing: there is no connection."""
