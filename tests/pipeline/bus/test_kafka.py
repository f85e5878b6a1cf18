"""KafkaBus beyond the contract: exact reads, topics that are missing, and addresses without a Kafka."""

from __future__ import annotations

import gc
import re
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.bus import kafka, peer
from pipeline.bus.connection import client_config
from pipeline.bus.kafka import PASSING, KafkaBus
from pipeline.bus.topics import TopicSpec
from pipeline.errors import EmoStreamError, KafkaUnreachableError, SettingError
from tests.harness.stages.bus import DEADLINE_S, append, take

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.integration
def test_read_returns_exactly_the_records_at_call_time(broker: object) -> None:
    """`read` returns every record from a start up to the end at the time of the call, over several polls."""
    with closing(KafkaBus(broker.bootstrap_servers)) as kafka:  # type: ignore[attr-defined]
        kafka.ensure(TopicSpec("read", 2))
        with closing(kafka.writer()) as writer:
            for n in range(25_000):
                writer.send("read", b"%d" % n, key=b"%d" % (n % 7))
            writer.flush()
        ends = kafka.ends("read")
        assert all(ends.values())
        everything = kafka.read("read")
        assert {record.value for record in everything} == {b"%d" % n for n in range(25_000)}
        assert len(everything) == 25_000
        rest = kafka.read("read", {0: ends[0] - 1, 1: ends[1] - 2})
        assert [(r.partition, r.offset) for r in sorted(rest)] == [(0, ends[0] - 1), (1, ends[1] - 2), (1, ends[1] - 1)]
        assert kafka.read("read", ends) == []


@pytest.mark.integration
def test_records_are_found_by_their_stamps(broker: object) -> None:
    """Those since a time, and those at offsets; partitions without such a record give their end, or nothing."""
    with closing(KafkaBus(broker.bootstrap_servers)) as kafka:  # type: ignore[attr-defined]
        kafka.ensure(TopicSpec("stamped", 2, {"message.timestamp.type": "LogAppendTime"}))
        for n in range(12):
            append(kafka, "stamped", b"%d" % n, key=b"%d" % n)
        records, ends = kafka.read("stamped"), kafka.ends("stamped")
        assert min(ends.values()) > 1
        for time_ms in {0, *(record.timestamp_ms for record in records), max(r.timestamp_ms for r in records) + 1}:
            later = [record for record in records if record.timestamp_ms >= time_ms]
            expected = {p: min([r.offset for r in later if r.partition == p], default=end) for p, end in ends.items()}
            assert kafka.since("stamped", time_ms) == expected
        at = {(record.partition, record.offset): record.timestamp_ms for record in records}
        assert kafka.stamps("stamped", {0: 0, 1: 1}) == {0: at[0, 0], 1: at[1, 1]}
        assert kafka.stamps("stamped", {0: ends[0] - 1, 1: ends[1], 7: 0}) == {0: at[0, ends[0] - 1]}
        assert kafka.stamps("stamped", {}) == {}


@pytest.mark.integration
def test_a_topic_that_is_made_again_has_another_id(broker: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for on one connection; while there is no such topic, the error says so."""
    made: list[AdminClient] = []

    def client(*given: object, **options: object) -> AdminClient:
        made.append(AdminClient(*given, **options))
        return made[-1]

    with closing(KafkaBus(broker.bootstrap_servers)) as bus:  # type: ignore[attr-defined]
        bus.ensure(TopicSpec("made-again", 1))
        monkeypatch.setattr(kafka, "AdminClient", client)
        before = bus.topic_id("made-again")
        assert bus.topic_id("made-again") == before
        assert len(made) == 1
        made[0].delete_topics(["made-again"])["made-again"].result(DEADLINE_S)
        with (
            closing(KafkaBus(broker.bootstrap_servers, wait_s=1)) as hasty,  # type: ignore[attr-defined]
            pytest.raises(KafkaUnreachableError, match="topic 'made-again' does not exist"),
        ):
            hasty.topic_id("made-again")
        bus.ensure(TopicSpec("made-again", 1))
        assert bus.topic_id("made-again") != before


@pytest.mark.integration
def test_missing_topic_is_named_with_remedy(broker: object) -> None:
    """The error names the topic, the server and the remedy."""
    for use in ("reader", "ends", "tail"):
        assert re.search(
            r"topic 'no-such-topic' does not exist.*waited.*EMOSTREAM_TOPIC_P",
            refusal(broker.bootstrap_servers, use),  # type: ignore[attr-defined]
        )


def refusal(servers: str, use: str) -> str:
    """Return the error of a call for a topic that does not exist.

    A broker that is slow to answer leaves a short wait without an answer: the wait grows until there is one.
    """
    for wait_s in (1, 8, 64):
        with closing(KafkaBus(servers, wait_s=wait_s)) as kafka, pytest.raises(EmoStreamError) as caught:
            USES[use](kafka)
        if "answers, but its brokers do not" not in str(caught.value):
            break
    return str(caught.value)


@pytest.mark.integration
def test_start_removed_by_retention_falls_back_to_oldest_record(broker: object) -> None:
    """A stage that returns after a long time reads the records that are left, or none."""
    servers: str = broker.bootstrap_servers  # type: ignore[attr-defined]
    with closing(KafkaBus(servers)) as kafka:
        kafka.ensure(TopicSpec("removed"))
        append(kafka, "removed", *(b"%d" % n for n in range(10)))
        admin = AdminClient(client_config(servers))

        def remove(before: int) -> None:
            for removed in admin.delete_records([TopicPartition("removed", 0, before)]).values():
                removed.result(DEADLINE_S)

        remove(7)
        with closing(kafka.reader("removed", {0: 2})) as reader:
            assert [record.offset for record in take(reader, 3)] == [7, 8, 9]
        remove(10)
        assert kafka.read("removed") == kafka.tail("removed", 3) == []


class Broker:
    """A broker that answers `times` times with `code`; its topic appears after `without_topic` questions."""

    def __init__(self, code: int, times: int, without_topic: int = 0) -> None:
        self.code = code
        self.times = times
        self.without_topic = without_topic

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        """Return the metadata of a topic of one partition."""
        self.without_topic -= 1
        partitions = {} if self.without_topic >= 0 else {0: None}
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=partitions)})

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        """Fail, or return the offsets of an empty partition."""
        self.times -= 1
        if self.times >= 0:
            raise KafkaException(KafkaError(self.code))
        return 0, 0


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address has a Kafka."""
    monkeypatch.setattr(peer, "ask", lambda *_: None)


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("code", PASSING)
def test_kafka_that_is_not_ready_is_asked_again(code: int) -> None:
    """While it starts, elects a leader, or has not heard of a new topic; the error says how long that was."""
    assert KafkaBus("k:1", wait_s=20.0)._bounds(Broker(code, 2), "t") == {0: (0, 0)}  # type: ignore[arg-type]
    with pytest.raises(
        KafkaUnreachableError, match=r"answers, but its brokers do not \(waited [0-9.]+ s: .*advertised"
    ):
        KafkaBus("k:1", wait_s=0.1)._bounds(Broker(code, 10**9), "t")  # type: ignore[arg-type]


@pytest.mark.usefixtures("answering")
def test_refused_request_is_not_repeated() -> None:
    """Waiting does not help a client that may not read the topic."""
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED, 1)
    with pytest.raises(KafkaUnreachableError, match=r"Kafka at bootstrap_servers='k:1' refused a request \(.*authoriz"):
        KafkaBus("k:1", wait_s=20.0)._bounds(broker, "t")  # type: ignore[arg-type]


@pytest.mark.usefixtures("answering")
def test_topic_that_appears_late_is_waited_for() -> None:
    """The stage that creates it may start later."""
    assert KafkaBus("k:1", wait_s=20.0)._bounds(Broker(0, 0, 3), "t") == {0: (0, 0)}  # type: ignore[arg-type]


class StartingKafka:
    """An admin client of a Kafka that starts: its broker registers late, and new topics have no leader at first."""

    def __init__(self, *_: object, **__: object) -> None:
        self.brokers = -1
        self.leaders: dict[str, int] = {}

    def list_topics(self, timeout: float) -> SimpleNamespace:
        """Return the topics; each has a leader the next time."""
        self.leaders.pop("lost", None)
        topics = {
            name: SimpleNamespace(partitions={0: SimpleNamespace(leader=leader)})
            for name, leader in self.leaders.items()
        }
        self.leaders = dict.fromkeys(self.leaders, 1)
        return SimpleNamespace(topics=topics)

    def create_topics(self, new: list[NewTopic], request_timeout: float) -> dict[str, Future[None]]:
        """Refuse at first, then create topics without leaders."""
        self.brokers += 1
        created: Future[None] = Future()
        if self.brokers:
            self.leaders |= {topic.topic: -1 for topic in new}
            created.set_result(None)
        else:
            created.set_exception(KafkaException(KafkaError(KafkaError.INVALID_REPLICATION_FACTOR)))
        return dict.fromkeys((topic.topic for topic in new), created)


@pytest.mark.usefixtures("answering")
def test_topics_of_a_starting_kafka_are_waited_for_until_they_have_leaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next call would fail; the error names the topics that have none."""
    admin = StartingKafka()
    monkeypatch.setattr(kafka, "AdminClient", lambda *_, **__: admin)
    KafkaBus("k:1", wait_s=20.0).ensure(TopicSpec("a"), TopicSpec("b"))
    assert admin.leaders == {"a": 1, "b": 1}
    with pytest.raises(KafkaUnreachableError, match=r"topics \['lost'\] have no leader .*\(waited [0-9.]+ s\)"):
        KafkaBus("k:1", wait_s=0.1).ensure(TopicSpec("a"), TopicSpec("lost"))


class SharedKafka(StartingKafka):
    """One where another process creates each topic first."""

    def create_topics(self, new: list[NewTopic], request_timeout: float) -> dict[str, Future[None]]:
        """Refuse what is there."""
        self.leaders |= {topic.topic: -1 for topic in new}
        created: Future[None] = Future()
        created.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)))
        return dict.fromkeys((topic.topic for topic in new), created)


@pytest.mark.parametrize("kind", [StartingKafka, SharedKafka])
@pytest.mark.usefixtures("answering")
def test_admin_client_is_freed_at_once(kind: type[StartingKafka], monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to the garbage collector it might be freed in a thread of the library, which then ends the process."""
    made: list[weakref.ref[StartingKafka]] = []

    def make(*_: object, **__: object) -> StartingKafka:
        admin = kind()
        made.append(weakref.ref(admin))
        return admin

    monkeypatch.setattr(kafka, "AdminClient", make)
    gc.disable()
    try:
        KafkaBus("k:1", wait_s=20.0).ensure(TopicSpec("a"))
        assert [admin() for admin in made] == [None]
    finally:
        gc.enable()


@contextmanager
def mute_server() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield "127.0.0.1:%d" % server.getsockname()[1]  # noqa: UP031


USES: dict[str, Callable[[KafkaBus], object]] = {
    "ensure": lambda bus: bus.ensure(TopicSpec("t")),
    "reader": lambda bus: bus.reader("no-such-topic"),
    "writer": lambda bus: bus.writer(),
    "ends": lambda bus: bus.ends("no-such-topic"),
    "tail": lambda bus: bus.tail("no-such-topic", 1),
}


@pytest.mark.parametrize("use", USES)
def test_unreachable_kafka_is_named_with_remedies(use: str) -> None:
    """Every call fails within `wait_s`; the error has the setting, the address and two remedies."""
    with closing(KafkaBus("127.0.0.1:1", wait_s=0.2)) as bus:
        with pytest.raises(KafkaUnreachableError) as caught:
            USES[use](bus)
        for words in (
            "bootstrap_servers='127.0.0.1:1'",
            "pipeline.broker",
            "EMOSTREAM_BOOTSTRAP_SERVERS",
        ):
            assert words in str(caught.value)
        waited = re.search(r"\(waited ([0-9.]+) s: ", str(caught.value))
        assert waited is not None
        assert 0.2 <= float(waited[1]) < 10


# Runs in a separate process, so that output of the library on standard error is seen as well.
GIVING_UP = """
import logging, sys
from pipeline.bus import peer
from pipeline.bus.kafka import KafkaBus
from pipeline.errors import KafkaUnreachableError
from pipeline.bus.topics import TopicSpec
logging.disable()
peer.SILENT_S = 0.1
bus = KafkaBus(sys.argv[1], wait_s=0.5, setting="feed_bootstrap_servers")
for use in (lambda: bus.ensure(TopicSpec("t")), lambda: bus.reader("t"), bus.writer, lambda: bus.ends("t")):
    try:
        use()
    except KafkaUnreachableError as error:
        print(error)
"""


def test_server_that_never_answers_is_unreachable() -> None:
    """Every call to a server that accepts the connection and stays silent fails within `wait_s`."""
    with mute_server() as address:
        command = [sys.executable, "-c", GIVING_UP, address]
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert len(lines) == 4
    assert all(f"no Kafka answers at feed_bootstrap_servers='{address}' (waited " in line for line in lines)
    assert all(line.endswith("or set EMOSTREAM_FEED_BOOTSTRAP_SERVERS") for line in lines)


@pytest.mark.parametrize(
    "servers",
    ["", "localhost", "localhost:", ":9092", "localhost:kafka", "localhost:-1", "localhost:0", "localhost:99999",
     "127.0.0.1:1,", "a..b:9092", "x" * 70 + ".org:9092", "127.0.0.1:1 "],
)  # fmt: skip
def test_malformed_address_is_a_setting_error(servers: str) -> None:
    """A host or port that is missing or impossible raises SettingError, not KafkaUnreachableError."""
    with closing(KafkaBus(servers, wait_s=0.2)) as bus:
        with pytest.raises(SettingError, match=r"bootstrap_servers \(EMOSTREAM_BOOTSTRAP_SERVERS\) is ") as caught:
            bus.ends("t")
        assert repr(servers) in str(caught.value)


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "unknown"), peer.NotKafkaError("answers b'HTTP'")]
)
def test_address_that_cannot_be_right_is_not_waited_for(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not exist, and a port of something else: the setting is named at once."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(peer, "ask", fail)
    with (
        closing(KafkaBus("k:1", wait_s=3600.0, setting="feed_bootstrap_servers")) as bus,
        pytest.raises(
            SettingError, match=r"feed_bootstrap_servers \(EMOSTREAM_FEED_BOOTSTRAP_SERVERS\) is 'k:1' \(k:1: "
        ),
    ):
        bus.check()


@pytest.mark.integration
def test_one_reachable_address_of_several_is_enough(broker: object) -> None:
    """A cluster's list of addresses may name a server that is down."""
    with closing(KafkaBus(f"127.0.0.1:1,{broker.bootstrap_servers}", wait_s=DEADLINE_S)) as bus:  # type: ignore[attr-defined]
        bus.ensure(TopicSpec("several"))
        assert bus.ends("several") == {0: 0}
