"""Appending records through librdkafka, and replacing a producer that has failed permanently."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline import logs
from pipeline.bus.base import FLUSH_TIMEOUT_S
from pipeline.bus.connection import LIBRARY_LOG, client_config
from pipeline.errors import KafkaUnreachableError

log = logs.get(__name__)

CLOSE_S = FLUSH_TIMEOUT_S
QUEUE_MAX_KBYTES = 16_384
# The errors of a producer that has failed permanently. SystemError comes when it fails while a delivery is reported.
FAILURES = (KafkaException, SystemError)


class KafkaWriter:
    """Appends records, and raises an error for those that Kafka refused at the next flush.

    `where` names the Kafka in errors: the setting and its value.
    """

    def __init__(self, servers: str, where: str) -> None:
        self._servers = servers
        self._where = where
        self._refusals: list[KafkaError] = []
        self._producer = self._connect()

    def _connect(self) -> Producer:
        return Producer(
            {
                **client_config(self._servers),
                "enable.idempotence": True,
                # The library's default is 1 GB. A full queue is flushed.
                "queue.buffering.max.kbytes": QUEUE_MAX_KBYTES,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
            },
            logger=LIBRARY_LOG,
        )

    def await_broker(self, wait_s: float) -> None:
        """Wait until a broker answers. Raises KafkaException when none does."""
        self._producer.list_topics(timeout=wait_s)

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Queue one record."""
        with self._replacing_failed_producer():
            try:
                self._producer.produce(topic, value, key)
            except BufferError:
                # The library's queue is full, at QUEUE_MAX_KBYTES or a hundred thousand records.
                self.flush()
                self._producer.produce(topic, value, key)
            # The library reports deliveries and errors only when it is polled, and not every caller flushes.
            self._producer.poll(0)

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until every queued record is acknowledged; give up those that are not in time.

        The library would go on for five minutes: it would write what the caller has reported as not written, or have a
        later flush blamed for it. A record that is on its way may arrive all the same.
        """
        with self._replacing_failed_producer():
            waiting = self._producer.flush(timeout_s)
        if waiting:
            self._replace_producer()
            raise self._refused(f"{waiting} records were not acknowledged within {timeout_s:g} s")
        refusals, self._refusals = self._refusals, []
        if refusals:
            raise self._refused(refusals[0].str())

    @contextmanager
    def _replacing_failed_producer(self) -> Iterator[None]:
        """Replace a producer that fails permanently: an idempotent one that lost its sequence takes no more records.

        The records queued with it are lost; the caller gets the error.
        """
        try:
            yield
        except FAILURES as error:
            if is_fatal(error):
                self._replace_producer()
            raise self._refused(str(error)) from error

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refusals.append(error)

    def _refused(self, reason: str) -> KafkaUnreachableError:
        return KafkaUnreachableError(
            f"Kafka at {self._where} did not take a record ({reason}): check that the broker runs and accepts writes"
        )

    def _replace_producer(self) -> None:
        give_up(self._producer)
        self._producer = self._connect()
        self._refusals.clear()

    def close(self) -> None:
        """Flush and close the connection; records that Kafka has not acknowledged within CLOSE_S are given up."""
        try:
            self.flush(CLOSE_S)
        except KafkaUnreachableError as error:
            log.warning("closed with unwritten records", reason=str(error))
        give_up(self._producer)


def give_up(producer: Producer) -> None:
    """Close a producer at once, with the records that Kafka has not acknowledged."""
    # Otherwise the library retries for five minutes, and closing waits for it.
    with suppress(*FAILURES):
        producer.purge()
    with suppress(*FAILURES):
        producer.flush(0)
    with suppress(*FAILURES):
        producer.close()


def is_fatal(error: Exception) -> bool:
    """Return whether a producer that raised `error`, one of FAILURES, has failed permanently."""
    return not isinstance(error, KafkaException) or error.args[0].fatal() or error.args[0].code() == KafkaError._FATAL
