"""Where flushes go: the protocol of a sink, and the sink that writes to `emoji-events` with librdkafka.

Measured on one core: kafka-python spends 37–40 µs of CPU per record, confluent-kafka 1.5 µs. Under one interpreter
lock, a worker could not answer requests in most of that time (`make bench SUITE=ingest`). In an outage this sink
differs from `pipeline.bus.kafka`: here a record waits without a time limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from confluent_kafka import KafkaError, Message, Producer

from pipeline import logs
from pipeline.bus.connection import LIBRARY_LOG, client_config

log = logs.get(__name__)


class EventSink(Protocol):
    """Where flushes go.

    `lost` counts the values that the sink's target refused permanently, `errors` the failed or broken connections.
    `refusals` has the refused values with the reason, until the flusher has seen them and clears it.
    """

    lost: int
    errors: int
    refusals: dict[bytes, str]

    def write(self, values: Sequence[bytes]) -> None:
        """Begin to send `values`, in order."""

    def wait(self, timeout_s: float) -> int:
        """Wait at most `timeout_s` for acknowledgements; return how many are outstanding."""

    def close(self) -> None:
        """Close the connection."""


class KafkaSink:
    """An idempotent producer for one topic that keeps trying until Kafka accepts or refuses a record.

    `queue_max` bounds librdkafka's own queue; it must be at least the largest flush. `lost` counts the records that
    Kafka refused permanently, `refusals` names them, `errors` counts the failed or broken connections.
    """

    def __init__(self, bootstrap_servers: str, topic: str, queue_max: int) -> None:
        self._topic = topic
        self.lost = 0
        self.errors = 0
        self.refusals: dict[bytes, str] = {}
        self._producer = Producer(
            {
                **client_config(bootstrap_servers),
                "enable.idempotence": True,
                "acks": "all",
                # The flush has already batched the records: send them at once.
                "linger.ms": 1,
                # Reactions are alike: a fifth of the bytes on the disk of Kafka.
                "compression.type": "lz4",
                # 0: no limit. The buffer's bound, not a timeout, decides when to refuse requests.
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": queue_max,
                "queue.buffering.max.kbytes": 2_000_000,
                # Records without a key stay on one partition for a while: larger batches, the same spread.
                "sticky.partitioning.linger.ms": 2,
                "delivery.report.only.error": True,
                "on_delivery": self._refused,
                "error_cb": self._failed,
            },
            logger=LIBRARY_LOG,
        )

    def write(self, values: Sequence[bytes]) -> None:
        """Give `values` to the producer."""
        produce = self._producer.produce
        for value in values:
            produce(self._topic, value)

    def wait(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records are still outstanding."""
        return self._producer.flush(timeout_s)

    def close(self) -> None:
        """Send what is left; librdkafka closes its connections when the producer is freed."""
        self._producer.flush(0)

    def _refused(self, error: KafkaError | None, message: Message) -> None:
        # Only for errors that no retry can fix, such as a topic that is gone or a right that was withdrawn.
        if error is not None:
            self.lost += 1
            value = message.value()
            if value is not None:
                self.refusals[value] = error.str()
            log.error("Kafka refused a reaction permanently: it is lost", reason=str(error), value=str(value))

    def _failed(self, error: KafkaError) -> None:
        # Not for fatal errors: `write` and `wait` raise those.
        self.errors += 1
        log.warning("the connection to Kafka failed; reactions wait in the buffer", reason=error.str())
