"""Reading the partitions of one topic through librdkafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from pipeline.bus.base import Record
from pipeline.errors import KafkaUnreachableError

POLL_MAX = 10_000


class KafkaReader:
    """Reads the assigned partitions of one topic; `positions` maps each to the offset of its next record.

    `consumer` reports the end of a partition. Not every offset holds a record: a transaction of another program ends
    with a marker, which no reader is given, so that only that report says that all has been read. `where` names the
    Kafka in errors: the setting and its value.
    """

    def __init__(self, consumer: Consumer, topic: str, positions: dict[int, int], where: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._positions = positions
        self._where = where
        self._refusal: KafkaError | None = None
        consumer.assign([TopicPartition(topic, number, offset) for number, offset in positions.items()])

    def poll(self, timeout_s: float) -> list[Record]:
        """Return the next records, or [] when none came within `timeout_s`.

        Raises KafkaUnreachableError when Kafka refuses the topic, after the records before that have been returned.
        An outage raises nothing: reading goes on by itself.
        """
        return self._next(timeout_s, lambda: False)

    def _next(self, timeout_s: float, reached: Callable[[], bool]) -> list[Record]:
        """Return the next records, or [] when none came within `timeout_s` or before `reached()`. Raises as `poll`."""
        end_s = time.monotonic() + timeout_s
        records: list[Record] = []
        while not records and self._refusal is None and not reached():
            if not self._receive(records, max(0.0, end_s - time.monotonic())):
                break
        if not records and self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise KafkaUnreachableError(
                f"Kafka at {self._where} refuses topic {self._topic!r} "
                f"({refusal.str()}): check that it exists and that this client may read it"
            )
        return records

    def _receive(self, records: list[Record], timeout_s: float) -> bool:
        """Add what comes to `records`; return False if nothing came, not even an error or the end of a partition."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return False
        # consume() alone would wait until its maximum is reached, or for the whole timeout.
        for message in (first, *self._consumer.consume(POLL_MAX - 1, 0)):
            error = message.error()
            if error is None:
                record = _record(message)
                self._positions[record.partition] = record.offset + 1
                records.append(record)
            elif error.code() == KafkaError._PARTITION_EOF:
                partition, offset = cast(int, message.partition()), cast(int, message.offset())
                self._positions[partition] = max(self._positions[partition], offset)
            else:
                self._refusal = error
        return True

    def until(self, ends: Mapping[int, int], timeout_s: float = 30.0) -> Iterable[Record]:
        """Yield records until every partition has been read up to `ends`.

        Raises KafkaUnreachableError after `timeout_s` without a record.
        """

        def reached() -> bool:
            return all(position >= ends.get(partition, 0) for partition, position in self._positions.items())

        while not reached():
            records = self._next(timeout_s, reached)
            if not records and not reached():
                raise KafkaUnreachableError(
                    f"Kafka sent nothing for {timeout_s:g} s before offset {dict(ends)}: check the broker's log"
                )
            yield from (record for record in records if record.offset < ends.get(record.partition, 0))

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def _record(message: Message) -> Record:
    # A record that was read has both.
    partition, offset = cast(int, message.partition()), cast(int, message.offset())
    return Record(partition, offset, message.timestamp()[1], message.key(), message.value())
