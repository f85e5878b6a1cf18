"""The real log: Apache Kafka by way of librdkafka.

Every reader assigns itself its partitions and takes part in no consumer group: a stage finds its place from its own
output, so a shared group, committed offsets and rebalances would only be ways to lose records.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline import logs
from pipeline.bus.base import Record
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError, SettingError

log = logs.get(__name__)

LISTENER_POLL_S = 0.1
TOPIC_POLL_S = 0.02
POLL_MAX = 10_000
CLOSE_S = 10.0
# How the library tells of a producer that is done for: the second when a record's fate was to be told at that moment.
FAILURES = (KafkaException, SystemError)
LIBRARY = logging.getLogger("librdkafka")
# librdkafka asks for a group even of who assigns itself its partitions; nobody joins this one or commits to it.
NO_GROUP = "emostream-no-group"


class KafkaBus:
    """Connects on first use; `bootstrap_servers` is host:port[,host:port].

    Every call raises KafkaUnreachableError when no broker answers within `wait_s`.
    """

    def __init__(self, bootstrap_servers: str, wait_s: float = 30.0, replication: int = 1) -> None:
        self._servers = bootstrap_servers
        self._wait_s = wait_s
        self._replication = replication
        self._reference: Consumer | None = None

    def _await_listener(self) -> None:
        """Wait until one of the servers takes a connection.

        The library waits as well, but says of a wrong address and of a refused connection alike that time ran out.
        """
        deadline_s = time.monotonic() + self._wait_s
        while True:
            for server in self._servers.split(","):
                host, _, port = server.rpartition(":")
                if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
                    raise self._unusable()
                try:
                    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
                    return
                except UnicodeError as error:
                    raise self._unusable() from error
                except OSError as error:
                    failure = error
            if time.monotonic() > deadline_s:
                raise self._unreachable(failure) from failure
            time.sleep(LISTENER_POLL_S)

    def _unusable(self) -> SettingError:
        return SettingError(
            f"bootstrap_servers (EMOSTREAM_BOOTSTRAP_SERVERS) is {self._servers!r}: give host:port[,host:port]"
        )

    def _unreachable(self, error: Exception) -> KafkaUnreachableError:
        return KafkaUnreachableError(
            f"no Kafka answers at bootstrap_servers={self._servers!r} (waited {self._wait_s:g} s: {error}): "
            f"start one (python -m pipeline.broker --port 9092) or set EMOSTREAM_BOOTSTRAP_SERVERS"
        )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._unreachable(error) from error

    def _consumer(self) -> Consumer:
        self._await_listener()
        return Consumer(
            {
                **connection(self._servers),
                "group.id": NO_GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                # A long topic comes faster than Python takes it: the second's pause at a full queue is one too long.
                "fetch.queue.backoff.ms": 20,
            },
            logger=LIBRARY,
        )

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics that do not exist; another process may do so at the same moment."""
        self._await_listener()
        admin = AdminClient(connection(self._servers), logger=LIBRARY)
        with self._answering():
            existing = admin.list_topics(timeout=self._wait_s).topics
            missing = {spec.name: spec for spec in specs if spec.name not in existing}
            self._create(admin, missing.values())
            # Other brokers may hear of them later, and who looks there would be told that they do not exist.
            deadline_s = time.monotonic() + self._wait_s
            while lacking := missing.keys() - admin.list_topics(timeout=self._wait_s).topics.keys():
                if time.monotonic() > deadline_s:
                    raise self._unreachable(TimeoutError(f"topics {sorted(lacking)} did not come to be"))
                time.sleep(TOPIC_POLL_S)

    def _create(self, admin: AdminClient, specs: Iterable[TopicSpec]) -> None:
        wanted = [NewTopic(spec.name, spec.partitions, self._replication, config=spec.config) for spec in specs]
        if not wanted:
            return
        for created in admin.create_topics(wanted, request_timeout=self._wait_s).values():
            try:
                created.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

    def reader(self, topic: str, start: Mapping[int, int] | None = None) -> KafkaReader:
        """Return a reader on a connection of its own."""
        consumer = self._consumer()
        try:
            positions: dict[int, int] = {}
            for number in self._partitions(consumer, topic):
                # Retention may have removed what a restarted stage would read next.
                first, _ = self._bounds(consumer, topic, number)
                positions[number] = max((start or {}).get(number, 0), first)
            return KafkaReader(consumer, topic, positions, self._servers)
        except BaseException:
            consumer.close()
            raise

    def writer(self) -> KafkaWriter:
        """Return an idempotent writer on a connection of its own."""
        self._await_listener()
        writer = KafkaWriter(self._servers)
        try:
            with self._answering():
                writer.await_broker(self._wait_s)
            return writer
        except BaseException:
            writer.close()
            raise

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record of each partition."""
        consumer = self._lookup()
        return {number: self._bounds(consumer, topic, number)[1] for number in self._partitions(consumer, topic)}

    def tail(self, topic: str, count: int) -> list[Record]:
        """Return the last `count` records of each partition."""
        ends = self.ends(topic)
        return self.read(topic, {p: max(0, end - count) for p, end in ends.items()})

    def read(self, topic: str, start: Mapping[int, int] | None = None) -> list[Record]:
        """Return every record from `start` on that is there when the call begins."""
        ends = self.ends(topic)
        reader = self.reader(topic, start)
        try:
            return list(reader.until(ends))
        finally:
            reader.close()

    def _lookup(self) -> Consumer:
        if self._reference is None:
            self._reference = self._consumer()
        return self._reference

    def _partitions(self, consumer: Consumer, topic: str) -> list[int]:
        with self._answering():
            numbers = consumer.list_topics(topic, timeout=self._wait_s).topics[topic].partitions
        if not numbers:
            raise KafkaUnreachableError(
                f"topic {topic!r} does not exist on {self._servers!r}: start the stage that writes it first, "
                f"or check EMOSTREAM_TOPIC_PREFIX"
            )
        return sorted(numbers)

    def _bounds(self, consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
        with self._answering():
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._wait_s)

    def close(self) -> None:
        """Close the connection used for look-ups; readers and writers are closed by their owners."""
        if self._reference is not None:
            self._reference.close()
            self._reference = None


class KafkaReader:
    """Reads the assigned partitions of one topic; `positions` is the offset of each one's next record."""

    def __init__(self, consumer: Consumer, topic: str, positions: dict[int, int], servers: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._positions = positions
        self._servers = servers
        self._refusal: KafkaError | None = None
        consumer.assign([TopicPartition(topic, number, offset) for number, offset in positions.items()])

    def poll(self, timeout_s: float) -> list[Record]:
        """Return the next records, or [] when none came within `timeout_s`.

        Raises KafkaUnreachableError where the topic is refused, once what came before that has been returned; an
        outage is none: reading goes on by itself.
        """
        records = self._take(timeout_s) if self._refusal is None else []
        if not records and self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise KafkaUnreachableError(
                f"Kafka at bootstrap_servers={self._servers!r} does not give topic {self._topic!r} "
                f"({refusal.str()}): check that it exists and may be read"
            )
        return records

    def _take(self, timeout_s: float) -> list[Record]:
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        records = []
        # consume() alone would wait for as many as it may return, or for the whole time.
        for message in (first, *self._consumer.consume(POLL_MAX - 1, 0)):
            self._refusal = message.error() or self._refusal
            if message.error() is None:
                record = _record(message)
                self._positions[record.partition] = record.offset + 1
                records.append(record)
        return records

    def until(self, ends: Mapping[int, int], timeout_s: float = 30.0) -> Iterable[Record]:
        """Yield records until every partition has been read up to `ends`.

        Raises KafkaUnreachableError when nothing comes for `timeout_s` before that.
        """
        while any(position < ends.get(partition, 0) for partition, position in self._positions.items()):
            records = self.poll(timeout_s)
            if not records:
                raise KafkaUnreachableError(
                    f"Kafka sent nothing for {timeout_s:g} s before offset {dict(ends)}: check the broker's log"
                )
            yield from (record for record in records if record.offset < ends.get(record.partition, 0))

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


class KafkaWriter:
    """Appends records and remembers those that were refused."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._refusals: list[KafkaError] = []
        self._producer = self._connected()

    def _connected(self) -> Producer:
        return Producer(
            {
                **connection(self._servers),
                "enable.idempotence": True,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
            },
            logger=LIBRARY,
        )

    def await_broker(self, wait_s: float) -> None:
        """Wait until a broker answers. Raises KafkaException when none does."""
        self._producer.list_topics(timeout=wait_s)

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Queue one record."""
        with self._trusted():
            try:
                self._producer.produce(topic, value, key)
            except BufferError:
                # The library's queue is full, at a hundred thousand records.
                self.flush()
                self._producer.produce(topic, value, key)
            # What the library has to tell waits until it is asked; not everyone flushes.
            self._producer.poll(0)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until every queued record is acknowledged."""
        with self._trusted():
            waiting = self._producer.flush(timeout_s)
        refusals, self._refusals = self._refusals, []
        if refusals:
            raise self._refused(refusals[0].str())
        if waiting:
            raise self._refused(f"{waiting} records were not acknowledged within {timeout_s:g} s")

    @contextmanager
    def _trusted(self) -> Iterator[None]:
        """Replace a producer that fails for good: an idempotent one that lost its place in the log takes nothing more.

        What was queued with it is lost, and whoever sent it hears so.
        """
        try:
            yield
        except FAILURES as error:
            if _is_fatal(error):
                self._give_up()
                self._producer = self._connected()
                self._refusals.clear()
            raise self._refused(str(error)) from error

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refusals.append(error)

    def _refused(self, reason: str) -> KafkaUnreachableError:
        return KafkaUnreachableError(
            f"Kafka at bootstrap_servers={self._servers!r} did not take a record ({reason}): "
            f"check that the broker runs and accepts writes"
        )

    def _give_up(self) -> None:
        # Without this the library would go on trying for five minutes, and closing would wait for it.
        with suppress(*FAILURES):
            self._producer.purge()
        with suppress(*FAILURES):
            self._producer.flush(0)
        with suppress(*FAILURES):
            self._producer.close()

    def close(self) -> None:
        """Flush and close the connection; what Kafka has not taken within 10 s is given up."""
        try:
            self.flush(CLOSE_S)
        except KafkaUnreachableError as error:
            log.warning("closed without all being written", reason=str(error))
        self._give_up()


def _is_fatal(error: Exception) -> bool:
    return not isinstance(error, KafkaException) or error.args[0].fatal() or error.args[0].code() == KafkaError._FATAL


def trouble(error: KafkaError) -> None:
    """Log what the library noticed of its connections; it tries again by itself."""
    log.warning("trouble with Kafka", reason=error.str())


def connection(servers: str) -> dict[str, Any]:
    """Return what every client of librdkafka is set to here."""
    return {
        "bootstrap.servers": servers,
        # The library's own 10 s would leave a stage away long after a broker has come back.
        "reconnect.backoff.max.ms": 1_000,
        "socket.nagle.disable": True,
        # What a broker may ask of its clients' figures nobody here reads.
        "enable.metrics.push": False,
        # The other strategy begins anew every second of an outage, with some twenty lines of log each time.
        "metadata.recovery.strategy": "none",
        "error_cb": trouble,
    }


def _record(message: Message) -> Record:
    # Of a record that was read, neither is None.
    partition, offset = cast(int, message.partition()), cast(int, message.offset())
    return Record(partition, offset, message.timestamp()[1], message.key(), message.value())
