"""Apache Kafka through librdkafka: the real twin of `MemoryBus`.

Every reader assigns itself its partitions and joins no consumer group. A stage finds out from its own output where to
go on, so a shared group, committed offsets and rebalances would only be ways to lose records.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.bus.base import Record
from pipeline.bus.connection import LIBRARY_LOG, client_config
from pipeline.bus.kafka_reader import KafkaReader
from pipeline.bus.kafka_writer import KafkaWriter
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError, SettingError
from pipeline.settings import DEFAULTS

LISTENER_POLL_S = 0.1
TOPIC_POLL_S = 0.02
# librdkafka requires a group even for self-assigned partitions; nobody joins this one or commits to it.
NO_GROUP = "emostream-no-group"


class KafkaBus:
    """Connects on first use; `bootstrap_servers` is host:port[,host:port].

    Every call raises KafkaUnreachableError when no broker answers within `wait_s`.
    """

    def __init__(self, bootstrap_servers: str, wait_s: float = DEFAULTS.kafka_wait_s, replication: int = 1) -> None:
        self._servers = bootstrap_servers
        self._wait_s = wait_s
        self._replication = replication
        self._reference: Consumer | None = None

    def _await_listener(self) -> None:
        """Wait until one of the servers takes a connection.

        The library waits as well, but reports a timeout for a wrong address and for a refused connection alike.
        """
        deadline_s = time.monotonic() + self._wait_s
        while True:
            for server in self._servers.split(","):
                host, _, port = server.rpartition(":")
                if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
                    raise self._bad_address()
                try:
                    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
                    return
                except UnicodeError as error:
                    raise self._bad_address() from error
                except OSError as error:
                    failure = error
            if time.monotonic() > deadline_s:
                raise self._unreachable(failure) from failure
            time.sleep(LISTENER_POLL_S)

    def _bad_address(self) -> SettingError:
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
                **client_config(self._servers),
                "group.id": NO_GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                # A long topic arrives faster than Python reads it, and the default pause at a full queue is 1 s.
                "fetch.queue.backoff.ms": 20,
            },
            logger=LIBRARY_LOG,
        )

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics that do not exist; another process may create them at the same moment."""
        self._await_listener()
        admin = AdminClient(client_config(self._servers), logger=LIBRARY_LOG)
        with self._answering():
            existing = admin.list_topics(timeout=self._wait_s).topics
            missing = {spec.name: spec for spec in specs if spec.name not in existing}
            self._create(admin, missing.values())
            # Other brokers learn of new topics later; until then they answer that the topics do not exist.
            deadline_s = time.monotonic() + self._wait_s
            while unknown := missing.keys() - admin.list_topics(timeout=self._wait_s).topics.keys():
                if time.monotonic() > deadline_s:
                    raise self._unreachable(TimeoutError(f"topics {sorted(unknown)} are not known to every broker"))
                time.sleep(TOPIC_POLL_S)

    def _create(self, admin: AdminClient, specs: Iterable[TopicSpec]) -> None:
        new_topics = [NewTopic(spec.name, spec.partitions, self._replication, config=spec.config) for spec in specs]
        if not new_topics:
            return
        for created in admin.create_topics(new_topics, request_timeout=self._wait_s).values():
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
                # Retention may have removed the records that a restarted stage would read next.
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
        """Return every record from `start` up to the end of the topic at the time of the call."""
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
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._wait_s)
            except KafkaException as error:
                # A broker knows a new topic a moment before it leads the topic's partitions.
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline_s:
                    raise self._unreachable(error) from error
            time.sleep(TOPIC_POLL_S)

    def close(self) -> None:
        """Close the connection used for look-ups; readers and writers are closed by their owners."""
        if self._reference is not None:
            self._reference.close()
            self._reference = None
