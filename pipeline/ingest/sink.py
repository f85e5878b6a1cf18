"""Where flushes go: the protocol of a sink, and the sink that writes to `emoji-events` with librdkafka.

Measured on one core: kafka-python spends 37–40 µs of CPU per record, confluent-kafka 1.5 µs. Under one interpreter
lock, a worker could not answer requests in most of that time (`make bench SUITE=ingest`). In an outage this sink
differs from `pipeline.bus.kafka`: here a record waits without a time limit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from confluent_kafka import KafkaError, Message, Producer

from pipeline import logs
from pipeline.bus.connection import LIBRARY_LOG, client_config
from pipeline.bus.kafka_writer import FAILURES, give_up, is_fatal

log = logs.get(__name__)

PIECE_MAX, PIECE_MAX_BYTES = 10_000, 900_000
"""What the library is given at a time: no more than one request to a partition holds (`batch.num.messages`,
`batch.size`).
"""
RECORD_BYTES = 40
"""What a record adds to its value in a request, at most."""
REPLACED_S = 0.5
"""The pause after a producer that failed permanently: the next one may fail at once for the same reason."""


class EventSink(Protocol):
    """Where flushes go.

    `lost` counts the values that the sink's target refused permanently, `errors` the failed or broken connections.
    `refusals` has the refused values with the reason, until the flusher has seen them and clears it.
    """

    lost: int
    errors: int
    refusals: dict[bytes, str]

    def write(self, values: Sequence[bytes]) -> None:
        """Take `values`; `wait` sends them, in order."""

    def wait(self, timeout_s: float) -> int:
        """Send, and wait at most `timeout_s` for acknowledgements; return how many values are outstanding."""

    def close(self) -> None:
        """Close the connection."""


class KafkaSink:
    """An idempotent producer for one topic that keeps trying until Kafka accepts or refuses a record.

    The library gets one piece of a flush after the other: while one is on its way, no record waits behind it. While
    any does, a thread of the library uses a whole core until Kafka answers: one request to a partition may be without
    an answer, and it asks without a pause whether the next may go. Two workers under 4,600 reactions a second used 0.5
    cores, and 2.1 while Kafka did not answer, when flushes began to leave before they were handed over.

    A producer that fails permanently is replaced, and the new one gets the piece again, whatever of it Kafka has taken:
    a report that the library makes while a producer fails is lost. `lost` counts the records that Kafka refused
    permanently, `refusals` names them, `errors` counts the failed or broken connections and the replaced producers.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._servers = bootstrap_servers
        self._topic = topic
        self.lost = 0
        self.errors = 0
        self.refusals: dict[bytes, str] = {}
        self._left: deque[bytes] = deque()
        self._piece: list[bytes] = []
        self._failed: list[tuple[bytes, KafkaError]] = []
        self._producer = self._connect()

    def _connect(self) -> Producer:
        return Producer(
            {
                **client_config(self._servers),
                "enable.idempotence": True,
                "acks": "all",
                # Until the piece is complete; `flush` then sends it at once.
                "linger.ms": 1_000,
                # Reactions are alike: a fifth of the bytes on the disk of Kafka.
                "compression.type": "lz4",
                # 0: no limit. The buffer's bound, not a timeout, decides when to refuse requests.
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": PIECE_MAX,
                "queue.buffering.max.kbytes": 2 * PIECE_MAX_BYTES >> 10,
                # Records without a key stay on one partition for a while: larger batches, the same spread.
                "sticky.partitioning.linger.ms": 2,
                "delivery.report.only.error": True,
                "on_delivery": self._not_delivered,
                "error_cb": self._connection_failed,
            },
            logger=LIBRARY_LOG,
        )

    def write(self, values: Sequence[bytes]) -> None:
        """Take `values`; `wait` gives them to the producer."""
        self._left.extend(values)

    def wait(self, timeout_s: float) -> int:
        """Send, and wait for acknowledgements; return how many values are still outstanding.

        Raises KafkaException for a record that the library does not take.
        """
        end_s = time.monotonic() + timeout_s
        while self._left or self._piece:
            try:
                if not self._piece:
                    self._send_piece()
                if self._producer.flush(max(0.0, end_s - time.monotonic())):
                    break
            except FAILURES as error:
                if not is_fatal(error):
                    raise
                self._replace_producer(error)
                time.sleep(min(REPLACED_S, timeout_s))
                if time.monotonic() >= end_s:
                    break
            else:
                self._piece.clear()
                self._note_refusals()
        return len(self._piece) + len(self._left)

    def _send_piece(self) -> None:
        produce, left, piece, size = self._producer.produce, self._left, self._piece, 0
        while left and len(piece) < PIECE_MAX and size < PIECE_MAX_BYTES:
            piece.append(left.popleft())
            size += len(piece[-1]) + RECORD_BYTES
        for value in piece:
            produce(self._topic, value)

    def _replace_producer(self, error: Exception) -> None:
        """Make a new producer, which gets the piece again."""
        self.errors += 1
        log.error(
            "the producer failed permanently: a new one sends again", reactions=len(self._piece), reason=str(error)
        )
        give_up(self._producer)
        self._failed.clear()
        self._left.extendleft(reversed(self._piece))
        self._piece.clear()
        self._producer = self._connect()

    def close(self) -> None:
        """Send what is left; librdkafka closes its connections when the producer is freed."""
        with suppress(*FAILURES):
            self._producer.flush(0)

    def _not_delivered(self, error: KafkaError | None, message: Message) -> None:
        # Only for errors that no retry can fix, such as a topic that is gone or a right that was withdrawn, and for
        # what a failed producer gives up.
        value = message.value()
        if error is not None and value is not None:
            self._failed.append((value, error))

    def _note_refusals(self) -> None:
        for value, error in self._failed:
            self.lost += 1
            self.refusals[value] = error.str()
            log.error("Kafka refused a reaction permanently: it is lost", reason=str(error), value=str(value))
        self._failed.clear()

    def _connection_failed(self, error: KafkaError) -> None:
        # Not for fatal errors: `wait` raises those.
        self.errors += 1
        log.warning("the connection to Kafka failed; reactions wait in the buffer", reason=error.str())
