"""Appending to and reading from a bus, for tests."""

from __future__ import annotations

import ctypes
import time
from contextlib import closing
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, Producer

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


LIBRDKAFKA = list(Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka-*"))
needs_librdkafka = pytest.mark.skipif(
    len(LIBRDKAFKA) != 1, reason="librdkafka was not found beside confluent-kafka on this system"
)


def fail_permanently(producer: Producer) -> None:
    """Have librdkafka put a producer into its fatal state, as after a lost sequence number."""
    (library,) = LIBRDKAFKA
    # The binding's object holds the library's handle directly after Python's object header.
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    code = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert ctypes.CDLL(str(library)).rd_kafka_test_fatal_error(handle, code, b"for this test") == 0
