"""The real log: Apache Kafka by way of kafka-python.

Every reader assigns itself its partitions and belongs to no consumer group: a stage finds its place from its own
output, so a shared group, committed offsets and rebalances would only be ways to lose records.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError

from pipeline.buses.bus import Record
from pipeline.errors import KafkaUnreachableError, SettingError
from pipeline.topics import TopicSpec

LISTENER_POLL_S = 0.1
RECONNECT_MAX_MS = 1_000


class KafkaBus:
    """Connects on first use; `bootstrap_servers` is host:port[,host:port].

    Every call raises KafkaUnreachableError when no broker answers within `wait_s`.
    """

    def __init__(self, bootstrap_servers: str, wait_s: float = 30.0, replication: int = 1) -> None:
        self._servers = bootstrap_servers
        self._wait_ms = int(wait_s * 1000)
        self._replication = replication
        self._reference: KafkaConsumer | None = None

    def _await_listener(self) -> None:
        """Wait until one of the servers takes a connection.

        The client library waits as well, but with a pause that grows to half a minute and an error a try.
        """
        deadline_s = time.monotonic() + self._wait_ms / 1000
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

    def _connection(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self._servers.split(","),
            "bootstrap_timeout_ms": self._wait_ms,
            # The library's own 30 s would leave a stage away long after a broker has come back.
            "reconnect_backoff_max_ms": RECONNECT_MAX_MS,
        }

    def _unusable(self) -> SettingError:
        return SettingError(
            f"bootstrap_servers (EMOSTREAM_BOOTSTRAP_SERVERS) is {self._servers!r}: give host:port[,host:port]"
        )

    def _unreachable(self, error: Exception) -> KafkaUnreachableError:
        return KafkaUnreachableError(
            f"no Kafka answers at bootstrap_servers={self._servers!r} (waited {self._wait_ms / 1000:g} s: {error}): "
            f"start one (python -m pipeline.broker --port 9092) or set EMOSTREAM_BOOTSTRAP_SERVERS"
        )

    def _consumer(self) -> KafkaConsumer:
        self._await_listener()
        try:
            return KafkaConsumer(
                **self._connection(),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_poll_records=10_000,
            )
        except KafkaError as error:
            raise self._unreachable(error) from error

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics that do not exist; another process may do so at the same moment."""
        self._await_listener()
        try:
            admin = KafkaAdminClient(**self._connection())
        except KafkaError as error:
            raise self._unreachable(error) from error
        try:
            existing = set(admin.list_topics())
            for spec in specs:
                if spec.name in existing:
                    continue
                wanted = {
                    spec.name: {
                        "num_partitions": spec.partitions,
                        "replication_factor": self._replication,
                        "configs": spec.config,
                    }
                }
                with suppress(TopicAlreadyExistsError):
                    admin.create_topics(wanted)
            admin.wait_for_topics([spec.name for spec in specs], timeout_ms=self._wait_ms)
        except KafkaError as error:
            raise self._unreachable(error) from error
        finally:
            admin.close()

    def reader(self, topic: str, start: Mapping[int, int] | None = None) -> KafkaReader:
        """Return a reader on a connection of its own."""
        consumer = self._consumer()
        try:
            partitions = self._partitions(consumer, topic)
            consumer.assign(partitions)
            first = consumer.beginning_offsets(partitions)
            for partition in partitions:
                wanted = (start or {}).get(partition.partition, 0)
                # Retention may have removed what a restarted stage would read next.
                consumer.seek(partition, max(wanted, first[partition]))
        except BaseException:
            consumer.close()
            raise
        return KafkaReader(consumer)

    def writer(self) -> KafkaWriter:
        """Return an idempotent writer on a connection of its own."""
        self._await_listener()
        try:
            producer = KafkaProducer(
                **self._connection(),
                acks="all",
                enable_idempotence=True,
            )
        except KafkaError as error:
            raise self._unreachable(error) from error
        return KafkaWriter(producer, self._servers)

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record of each partition."""
        consumer = self._lookup()
        ends = consumer.end_offsets(self._partitions(consumer, topic))
        return {partition.partition: offset for partition, offset in ends.items()}

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

    def _lookup(self) -> KafkaConsumer:
        if self._reference is None:
            self._reference = self._consumer()
        return self._reference

    def _partitions(self, consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
        try:
            numbers = consumer.partitions_for_topic(topic)
        except KafkaError as error:
            raise self._unreachable(error) from error
        if not numbers:
            raise KafkaUnreachableError(
                f"topic {topic!r} does not exist on {self._servers!r}: start the stage that writes it first, "
                f"or check EMOSTREAM_TOPIC_PREFIX"
            )
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    def close(self) -> None:
        """Close the connection used for look-ups; readers and writers are closed by their owners."""
        if self._reference is not None:
            self._reference.close()
            self._reference = None


class KafkaReader:
    """Reads the assigned partitions of one topic."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    def poll(self, timeout_s: float) -> list[Record]:
        """Return the next records, or [] when none came within `timeout_s`."""
        batches: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        return [
            Record(record.partition, record.offset, record.timestamp, record.key, record.value)
            for batch in batches.values()
            for record in batch
        ]

    def until(self, ends: Mapping[int, int], timeout_s: float = 30.0) -> Iterable[Record]:
        """Yield records until every partition has been read up to `ends`.

        Raises KafkaUnreachableError when nothing comes for `timeout_s` before that.
        """
        while any(
            self._consumer.position(partition) < ends.get(partition.partition, 0)
            for partition in self._consumer.assignment()
        ):
            records = self.poll(timeout_s)
            if not records and any(
                self._consumer.position(p) < ends.get(p.partition, 0) for p in self._consumer.assignment()
            ):
                raise KafkaUnreachableError(
                    f"Kafka sent nothing for {timeout_s:g} s before offset {dict(ends)}: check the broker's log"
                )
            yield from (record for record in records if record.offset < ends.get(record.partition, 0))

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


class KafkaWriter:
    """Appends records and remembers those not yet acknowledged."""

    def __init__(self, producer: KafkaProducer, servers: str) -> None:
        self._producer = producer
        self._servers = servers
        self._pending: list[Any] = []

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Queue one record."""
        try:
            self._pending.append(self._producer.send(topic, value=value, key=key))
        except KafkaError as error:
            raise self._refused(error) from error

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until every queued record is acknowledged."""
        pending, self._pending = self._pending, []
        try:
            self._producer.flush(timeout=timeout_s)
            for future in pending:
                future.get(timeout=timeout_s)
        except KafkaError as error:
            raise self._refused(error) from error

    def _refused(self, error: KafkaError) -> KafkaUnreachableError:
        return KafkaUnreachableError(
            f"Kafka at bootstrap_servers={self._servers!r} did not take a record ({error}): "
            f"check that the broker runs and accepts writes"
        )

    def close(self) -> None:
        """Flush and close the connection."""
        self._producer.close(timeout=10)
