"""Apache Kafka through librdkafka: the real twin of `MemoryBus`.

Every reader assigns itself its partitions and joins no consumer group. A stage finds out from its own output where to
go on, so a shared group, committed offsets and rebalances would only be ways to lose records.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline import kafka_security, logs
from pipeline.bus import peer
from pipeline.bus.base import Record, newest
from pipeline.bus.connection import LIBRARY_LOG, client_config
from pipeline.bus.kafka_reader import KafkaReader
from pipeline.bus.kafka_writer import KafkaWriter
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError, SettingError
from pipeline.settings import DEFAULTS

log = logs.get(__name__)

POLL_S = 0.05
# A busy broker takes a moment to answer; a connection that hangs must not use up the whole wait.
ASK_S = 2.0
# What was read and Python has not taken yet; the library's default is 64 MB for each reader.
QUEUED_MAX_KBYTES = 16_384
# librdkafka requires a group even for self-assigned partitions; nobody joins this one or commits to it.
NO_GROUP = "emostream-no-group"
# What a Kafka answers while it starts, elects leaders, or creates topics, and what the library reports meanwhile.
PASSING = frozenset(
    {
        *(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART),
        *(KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE),
        *(KafkaError.BROKER_NOT_AVAILABLE, KafkaError.REPLICA_NOT_AVAILABLE, KafkaError.NOT_CONTROLLER),
        *(KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION, KafkaError.KAFKA_STORAGE_ERROR),
        *(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_ID),
        # Before the first broker has registered, no replica can be placed.
        KafkaError.INVALID_REPLICATION_FACTOR,
        *(KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._ALL_BROKERS_DOWN),
        *(KafkaError._RESOLVE, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError._WAIT_CACHE),
    }
)

T = TypeVar("T")


class KafkaBus:
    """Connects on first use; `bootstrap_servers` is host:port[,host:port], the value of `setting`.

    Every call waits up to `wait_s` for Kafka to start, elect leaders and create topics, and then raises
    KafkaUnreachableError. A `bootstrap_servers` that cannot be right raises SettingError at once.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        wait_s: float = DEFAULTS.kafka_wait_s,
        replication: int = 1,
        setting: str = "bootstrap_servers",
    ) -> None:
        self._servers = bootstrap_servers
        self._wait_s = wait_s
        self._replication = replication
        self._setting = setting
        self._where = f"{setting}={bootstrap_servers!r}"
        self._variable = f"EMOSTREAM_{setting.upper()}"
        self._has_answered = False
        self._reference: Consumer | None = None
        self._admin: AdminClient | None = None

    def check(self) -> None:
        """Wait until Kafka answers; raise the error of every other call if it does not. Logs what it waits for."""
        try:
            self._ask()
        except OSError as error:
            log.warning("waiting for Kafka", where=self._where, reason=str(error), at_most_s=self._wait_s)
        self._patiently(
            lambda timeout_s: AdminClient(client_config(self._servers), logger=LIBRARY_LOG).list_topics(
                timeout=timeout_s
            )
        )

    def _patiently(self, call: Callable[[float], T]) -> T:
        """Return `call(timeout_s)`, called again until `wait_s` has passed in all, while Kafka is not ready for it."""
        started_s = time.monotonic()
        while True:
            try:
                if not self._has_answered:
                    self._ask()
                    self._has_answered = True
                return call(max(started_s + self._wait_s - time.monotonic(), POLL_S))
            except (OSError, _NotYetError) as error:
                # A traceback would hold this frame, and with it `call`'s client, until the garbage collector comes by.
                # In a thread of the library that would end the process: a client must not be freed there.
                failure: Exception = error.with_traceback(None)
            except KafkaException as error:
                if error.args[0].code() not in PASSING:
                    raise KafkaUnreachableError(
                        f"Kafka at {self._where} refused a request ({error.args[0].str()}): "
                        "check that this client may use it, and the broker's log"
                    ) from error
                failure = error.with_traceback(None)
                self._has_answered = False
            waited_s = time.monotonic() - started_s
            if waited_s >= self._wait_s:
                raise self._late(failure, waited_s) from failure
            time.sleep(POLL_S)

    def _ask(self) -> None:
        """Return if one of the servers answers as a Kafka does.

        The library waits as well, but reports a timeout for a wrong address and for a refused connection alike. Raises
        OSError if another attempt may succeed, SettingError if not.
        """
        failures = {}
        # One with TLS answers nobody who does not speak it.
        ask = peer.connect if kafka_security.is_encrypted() else peer.ask
        for server in self._servers.split(","):
            try:
                return ask(*self._address(server), min(ASK_S, max(self._wait_s, POLL_S)))
            except OSError as error:
                failures[server] = error
        if all(_is_final(error) for error in failures.values()):
            reasons = "; ".join(f"{server}: {error.strerror or error}" for server, error in failures.items())
            raise self._wrong(reasons)
        raise next(error for error in failures.values() if not _is_final(error))

    def _address(self, server: str) -> tuple[str, int]:
        host, _, port = server.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            host.encode("idna")
            if host and port.isdecimal() and 0 < int(port) <= 65535:
                return host, int(port)
        except ValueError:
            pass
        raise self._wrong("not an address")

    def _wrong(self, reason: str) -> SettingError:
        return SettingError(
            f"{self._setting} ({self._variable}) is {self._servers!r} ({reason}): give host:port[,host:port] of a Kafka"
        )

    def _late(self, error: Exception, waited_s: float) -> KafkaUnreachableError:
        """Return the error for a call that did not succeed in time."""
        if isinstance(error, _NotYetError):
            return KafkaUnreachableError(
                f"{error.problem} on the Kafka at {self._where} (waited {waited_s:.1f} s): {error.remedy}"
            )
        try:
            if isinstance(error, OSError):
                raise error
            self._ask()
        except OSError as silence:
            return KafkaUnreachableError(
                f"no Kafka answers at {self._where} (waited {waited_s:.1f} s: {silence}): "
                f"start one (python -m pipeline.broker --port 9092) or set {self._variable}"
            )
        return KafkaUnreachableError(
            f"Kafka at {self._where} answers, but its brokers do not (waited {waited_s:.1f} s: {error}): "
            "check that this machine reaches the addresses in its advertised.listeners, and the broker's log"
        )

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                **client_config(self._servers),
                "group.id": NO_GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                # As Spark reads: a transaction that another program left open holds nobody up.
                "isolation.level": "read_uncommitted",
                "enable.partition.eof": True,
                # A long topic arrives faster than Python reads it, and the default pause at a full queue is 1 s.
                "fetch.queue.backoff.ms": 20,
                "queued.max.messages.kbytes": QUEUED_MAX_KBYTES,
                # Records are sent as soon as there are any; without any, each answer costs the broker as much. Beside
                # an idle chain Kafka used 6.1 % of a core with the default of 500 ms, and uses 3.8 % with this.
                "fetch.wait.max.ms": 5_000,
                # Once, after a restart of Kafka, a reader got nothing for a minute. The default of five minutes is how
                # long it may not learn of a new leader.
                "topic.metadata.refresh.interval.ms": 20_000,
            },
            logger=LIBRARY_LOG,
        )

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics that do not exist; another process may create them at the same moment.

        Returns when each of them has leaders.
        """
        admin: AdminClient | None = None

        def created(timeout_s: float) -> None:
            nonlocal admin
            if admin is None:
                admin = AdminClient(client_config(self._servers), logger=LIBRARY_LOG)
            known = admin.list_topics(timeout=timeout_s).topics
            missing = [spec for spec in specs if spec.name not in known]
            if missing:
                self._create(admin, missing, timeout_s)
                # Other brokers learn of new topics later; until then they answer that the topics do not exist.
                known = admin.list_topics(timeout=timeout_s).topics
            leaders = {name: [each.leader for each in topic.partitions.values()] for name, topic in known.items()}
            # A partition without a leader has -1.
            waiting = [spec.name for spec in specs if min(leaders.get(spec.name, []), default=-1) < 0]
            if waiting:
                raise _NotYetError(f"topics {waiting} have no leader", "check the broker's log")

        self._patiently(created)

    def _create(self, admin: AdminClient, specs: Iterable[TopicSpec], timeout_s: float) -> None:
        new_topics = [NewTopic(spec.name, spec.partitions, self._replication, config=spec.config) for spec in specs]
        for created in admin.create_topics(new_topics, request_timeout=timeout_s).values():
            # Not raised and caught here: its traceback would hold this frame, and so `admin` (see `_patiently`).
            error = created.exception()
            if error is not None and error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise error

    def reader(self, topic: str, start: Mapping[int, int] | None = None) -> KafkaReader:
        """Return a reader on a connection of its own."""
        consumer = self._consumer()
        try:
            # Retention may have removed the records that a restarted stage would read next.
            positions = {
                number: max((start or {}).get(number, 0), first)
                for number, (first, _) in self._bounds(consumer, topic).items()
            }
            return KafkaReader(consumer, topic, positions, self._where)
        except BaseException:
            consumer.close()
            raise

    def writer(self) -> KafkaWriter:
        """Return an idempotent writer on a connection of its own."""
        writer = KafkaWriter(self._servers, self._where)
        try:
            self._patiently(writer.await_broker)
            return writer
        except BaseException:
            writer.close()
            raise

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record of each partition."""
        return {number: end for number, (_, end) in self.bounds(topic).items()}

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return of each partition the offset of its first record and the one after its last."""
        return self._bounds(self._looking_up(), topic)

    def topic_id(self, topic: str) -> str:
        """Return Kafka's id of the topic: one that is made again has another."""

        def asked(timeout_s: float) -> str:
            # A client that has nothing to do counts as false.
            admin = self._admin
            if admin is None:
                admin = self._admin = AdminClient(client_config(self._servers), logger=LIBRARY_LOG)
            # What it has to say of earlier requests.
            admin.poll(0)
            found = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic]
            # Not raised and caught here, as in `_create`.
            error = found.exception()
            if error is not None and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _NotYetError(f"topic {topic!r} does not exist", "make it again, or see who removed it")
            if error is not None:
                raise error
            return str(found.result().topic_id)

        return self._patiently(asked)

    def since(self, topic: str, timestamp_ms: int) -> dict[int, int]:
        """Return of each partition the offset of the first record stamped at that time or later, else its end."""
        ends = self.ends(topic)

        def asked(timeout_s: float) -> dict[int, int]:
            times = [TopicPartition(topic, number, timestamp_ms) for number in ends]
            found = self._looking_up().offsets_for_times(times, timeout=timeout_s)
            for error in [each.error for each in found if each.error is not None]:
                raise KafkaException(error)
            return {each.partition: each.offset if each.offset >= 0 else ends[each.partition] for each in found}

        return self._patiently(asked)

    def stamps(self, topic: str, places: Mapping[int, int]) -> dict[int, int]:
        """Return of each partition the stamp (ms) of its record at an offset; those that are not there are left out."""
        bounds = self.bounds(topic)
        there = {number: at for number, at in places.items() if number in bounds and at in range(*bounds[number])}
        if not there:
            return {}
        start = {number: end for number, (_, end) in bounds.items()} | there
        records = self.records(topic, {number: at + 1 for number, at in there.items()}, start)
        return {record.partition: record.timestamp_ms for record in records if there[record.partition] == record.offset}

    def _looking_up(self) -> Consumer:
        if self._reference is None:
            self._reference = self._consumer()
        return self._reference

    def tail(self, topic: str, count: int) -> list[Record]:
        """Return the last `count` records of each partition, those of TAIL_MAX_BYTES at most."""
        ends = self.ends(topic)
        return newest(self.records(topic, ends, {p: max(0, end - count) for p, end in ends.items()}))

    def records(self, topic: str, ends: Mapping[int, int], start: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Yield every record from `start`, or from the oldest kept, up to `ends`."""
        with closing(self.reader(topic, start)) as reader:
            yield from reader.until(ends)

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, ends: Mapping[int, int] | None = None
    ) -> list[Record]:
        """Return every record from `start` up to `ends`, or up to the end of the topic at the time of the call."""
        return list(self.records(topic, self.ends(topic) if ends is None else ends, start))

    def _bounds(self, consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
        """Return, for each partition of `topic`, the offset of its first record and the one after its last."""

        def asked(timeout_s: float) -> dict[int, tuple[int, int]]:
            partitions = consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions
            if not partitions:
                raise _NotYetError(
                    f"topic {topic!r} does not exist",
                    "start the stage that writes it first, or check EMOSTREAM_TOPIC_PREFIX",
                )
            return {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=timeout_s)
                for number in sorted(partitions)
            }

        return self._patiently(asked)

    def close(self) -> None:
        """Close the connection used for look-ups; readers and writers are closed by their owners."""
        self._has_answered = False
        if self._reference is not None:
            self._reference.close()
            self._reference = None
        self._admin = None


class _NotYetError(Exception):
    """Kafka answers, and has not yet what the call needs."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def _is_final(error: OSError) -> bool:
    """Return whether another attempt would fail in the same way: not a Kafka, or a name that does not exist."""
    return isinstance(error, peer.NotKafkaError) or (
        isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
    )
