"""The sink of ingest: reactions to `emoji-events` by way of librdkafka.

Measured on one core: kafka-python spends 37–40 µs of CPU a record, confluent-kafka 1.5 µs. Under one interpreter
lock that difference is most of what keeps a worker from answering requests (`make bench SUITE=ingest`). What differs
from `pipeline.bus.kafka` is what becomes of a record in an outage: here it waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaError, Message, Producer

from pipeline import logs
from pipeline.bus.connection import LIBRARY_LOG, client_config

log = logs.get(__name__)


class KafkaSink:
    """An idempotent producer for one topic that never gives a record up by itself.

    `queue_max` bounds librdkafka's own queue; it must be at least the largest flush. `lost` counts the records Kafka
    refused for good, `errors` the connections that failed or broke.
    """

    def __init__(self, bootstrap_servers: str, topic: str, queue_max: int) -> None:
        self._topic = topic
        self.lost = 0
        self.errors = 0
        self._producer = Producer(
            {
                **client_config(bootstrap_servers),
                "enable.idempotence": True,
                "acks": "all",
                # Records leave when the flush begins; it is the flush that batches them.
                "linger.ms": 1,
                # 0: try for ever. The buffer's bound, not a timeout, decides when to refuse requests.
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
        """Hand `values` to the producer."""
        produce = self._producer.produce
        for value in values:
            produce(self._topic, value)

    def wait(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records are still outstanding."""
        return self._producer.flush(timeout_s)

    def close(self) -> None:
        """Librdkafka closes its connections with the producer; what is outstanding has been waited for."""
        self._producer.flush(0)

    def _refused(self, error: KafkaError | None, message: Message) -> None:
        # Only what no retry can mend comes here, such as a record over the broker's size limit.
        if error is not None:
            self.lost += 1
            log.error("Kafka refused a reaction for good: it is lost", reason=str(error), value=str(message.value()))

    def _failed(self, error: KafkaError) -> None:
        # A fatal one does not come here: whoever writes or waits has it raised.
        self.errors += 1
        log.warning("trouble with Kafka; reactions wait in the buffer", reason=error.str())
