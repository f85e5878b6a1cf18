"""Appending to and reading from a bus, for tests."""

from __future__ import annotations

import time
from contextlib import closing

from pipeline.bus.base import Bus, Reader, Record

# No test here waits this long unless something is broken.
DEADLINE_S = 60.0


def append(bus: Bus, topic: str, *values: bytes | None, key: bytes | None = None) -> None:
    """Append one record per value and wait until all are in the log."""
    with closing(bus.writer()) as writer:
        for value in values:
            writer.send(topic, value, key=key)
        writer.flush()


def take(reader: Reader, count: int) -> list[Record]:
    """Read until `count` records have come; fail at the deadline."""
    records: list[Record] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while len(records) < count and time.monotonic() < deadline_s:
        records += reader.poll(0.2)
    assert len(records) == count
    return records


def values(records: list[Record]) -> list[bytes | None]:
    """Return the records' values."""
    return [record.value for record in records]
