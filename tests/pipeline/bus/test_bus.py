"""The bus's contract: what stages rely on, held by the in-memory bus and by the real Kafka alike."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus import kafka as kafka_bus
from pipeline.bus.base import Bus, Reader, Record, Writer
from pipeline.bus.kafka import KafkaBus, KafkaWriter, connection
from pipeline.bus.topics import TopicSpec
from pipeline.errors import EmoStreamError, KafkaUnreachableError, SettingError

# Nothing here waits so long unless it is broken.
DEADLINE_S = 20.0
REPOSITORY = Path(__file__).resolve().parents[3]
LIBRDKAFKA = list(Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka-*"))


def append(bus: Bus, topic: str, *values: bytes | None, key: bytes | None = None) -> None:
    """Append records and wait until they are in the log."""
    with closing(bus.writer()) as writer:
        for value in values:
            writer.send(topic, value, key=key)
        writer.flush()


def take(reader: Reader, count: int) -> list[Record]:
    """Read until `count` records have come; fail at the deadline."""
    records: list[Record] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while len(records) < count and time.monotonic() < deadline_s:
        records += reader.poll(0.2)
    assert len(records) == count
    return records


def values(records: list[Record]) -> list[bytes | None]:
    """Return what the records say."""
    return [record.value for record in records]


def test_records_come_in_order_with_their_offsets(bus: Bus, make_topic: Callable[..., str]) -> None:
    """A reader without a start gets everything from the oldest record on, and then what is appended."""
    topic = make_topic()
    append(bus, topic, *(b"%d" % n for n in range(500)))
    with closing(bus.reader(topic)) as reader:
        first = take(reader, 500)
        append(bus, topic, b"500", b"501")
        records = first + take(reader, 2)
    assert values(records) == [b"%d" % n for n in range(502)]
    assert [(record.partition, record.offset) for record in records] == [(0, n) for n in range(502)]


def test_an_append_is_stamped_in_milliseconds_of_the_epoch(bus: Bus, make_topic: Callable[..., str]) -> None:
    """The stamp lies between the moments before and after the append."""
    topic = make_topic()
    before_ms = time.time_ns() // 1_000_000
    append(bus, topic, b"x")
    after_ms = time.time_ns() // 1_000_000
    assert before_ms <= bus.tail(topic, 1)[0].timestamp_ms <= after_ms


def test_ensuring_a_topic_again_changes_nothing(bus: Bus, make_topic: Callable[..., str]) -> None:
    """An existing topic keeps its records and its partitions, whatever is asked for; new ones are made beside it."""
    topic = make_topic(2)
    append(bus, topic, b"x", key=b"k")
    bus.ensure(TopicSpec(topic, 2), TopicSpec(topic + "-new"))
    bus.ensure(TopicSpec(topic, 5))
    assert sorted(bus.ends(topic)) == [0, 1]
    assert values(bus.tail(topic, 10)) == [b"x"]
    assert bus.ends(topic + "-new") == {0: 0}


def test_a_reader_starts_where_it_is_told(bus: Bus, make_topic: Callable[..., str]) -> None:
    """It starts at the offset itself; at the end it gets only what comes later."""
    topic = make_topic()
    append(bus, topic, b"0", b"1", b"2")
    with closing(bus.reader(topic, {0: 1})) as middle, closing(bus.reader(topic, bus.ends(topic))) as end:
        assert values(take(middle, 2)) == [b"1", b"2"]
        append(bus, topic, b"3")
        assert values(take(end, 1)) == [b"3"]
        assert values(take(middle, 1)) == [b"3"]


def test_each_partition_has_its_own_start(bus: Bus, make_topic: Callable[..., str]) -> None:
    """Partitions that are not named in the start are read from their beginning."""
    topic = make_topic(4)
    with closing(bus.writer()) as writer:
        for n in range(40):
            writer.send(topic, b"%d" % n, key=b"key-%d" % n)
        writer.flush()
    ends = bus.ends(topic)
    assert sum(ends.values()) == 40
    full = max(ends, key=lambda partition: ends[partition])
    with closing(bus.reader(topic, {full: ends[full] - 1})) as reader:
        records = take(reader, 40 - ends[full] + 1)
    assert [record.offset for record in records if record.partition == full] == [ends[full] - 1]


def test_a_key_keeps_its_records_together_and_in_order(bus: Bus, make_topic: Callable[..., str]) -> None:
    """All records of a key lie on one partition, in the order in which they were sent."""
    topic = make_topic(3)
    with closing(bus.writer()) as writer:
        for n in range(60):
            writer.send(topic, b"%d" % n, key=b"key-%d" % (n % 5))
        writer.flush()
    with closing(bus.reader(topic)) as reader:
        records = take(reader, 60)
    for key in {record.key for record in records}:
        own = [record for record in records if record.key == key]
        assert len({record.partition for record in own}) == 1
        assert [int(record.value or b"") % 5 for record in own] == [int((key or b"").removeprefix(b"key-"))] * 12
        assert sorted(values(own), key=lambda value: int(value or b"")) == values(own)


def test_a_null_value_is_a_tombstone_with_its_key(bus: Bus, make_topic: Callable[..., str]) -> None:
    """A null record is read as null, with the key it is about, and is not the same as an empty one."""
    topic = make_topic()
    append(bus, topic, None, b"", key=b"client")
    append(bus, topic, b"x")
    records = bus.tail(topic, 3)
    assert [(record.key, record.value) for record in records] == [(b"client", None), (b"client", b""), (None, b"x")]


def test_readers_share_nothing(bus: Bus, make_topic: Callable[..., str]) -> None:
    """Two readers each get every record, and closing one leaves the other as it is."""
    topic = make_topic()
    append(bus, topic, b"0", b"1")
    with closing(bus.reader(topic)) as second:
        with closing(bus.reader(topic)) as first:
            assert values(take(first, 2)) == [b"0", b"1"]
        append(bus, topic, b"2")
        assert values(take(second, 3)) == [b"0", b"1", b"2"]


def test_nothing_new_is_an_empty_poll(bus: Bus, make_topic: Callable[..., str]) -> None:
    """A poll without records returns an empty list instead of waiting for ever."""
    with closing(bus.reader(make_topic())) as reader:
        assert reader.poll(0.01) == []


def test_ends_are_after_the_last_record(bus: Bus, make_topic: Callable[..., str]) -> None:
    """An empty partition ends at 0, another at the number of its records."""
    topic = make_topic(2)
    assert bus.ends(topic) == {0: 0, 1: 0}
    append(bus, topic, b"a", b"b", b"c", key=b"k")
    assert sorted(bus.ends(topic).values()) == [0, 3]


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [b"4"]), (3, [b"2", b"3", b"4"]), (9, list(b"01234"))])
def test_the_tail_is_the_last_records(
    bus: Bus, make_topic: Callable[..., str], count: int, expected: list[bytes | int]
) -> None:
    """The last `count` records, oldest first; fewer where there are fewer, and none of none."""
    topic = make_topic()
    append(bus, topic, *(b"%d" % n for n in range(5)))
    wanted = [bytes([each]) if isinstance(each, int) else each for each in expected]
    assert values(bus.tail(topic, count)) == wanted


def test_the_tail_is_that_of_each_partition(bus: Bus, make_topic: Callable[..., str]) -> None:
    """With several partitions, each gives its own last records."""
    topic = make_topic(3)
    with closing(bus.writer()) as writer:
        for n in range(60):
            writer.send(topic, b"%d" % n, key=b"key-%d" % n)
        writer.flush()
    ends = bus.ends(topic)
    expected = {(p, offset) for p, end in ends.items() for offset in range(max(0, end - 2), end)}
    assert {(record.partition, record.offset) for record in bus.tail(topic, 2)} == expected


def test_what_was_sent_is_there_after_close(bus: Bus, make_topic: Callable[..., str]) -> None:
    """Closing a writer flushes it."""
    topic = make_topic()
    writer = bus.writer()
    writer.send(topic, b"x")
    writer.close()
    assert bus.ends(topic) == {0: 1}


@pytest.mark.integration
def test_kafka_reads_exactly_what_was_there(broker: object) -> None:
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
def test_a_topic_that_is_not_there_is_named(broker: object) -> None:
    """Reading a topic nobody made says which one, where, and what to do."""
    with closing(KafkaBus(broker.bootstrap_servers)) as kafka:  # type: ignore[attr-defined]
        for use in (kafka.reader, kafka.ends, lambda topic: kafka.tail(topic, 1)):
            with pytest.raises(EmoStreamError, match=r"topic 'no-such-topic' does not exist.*EMOSTREAM_TOPIC_PREFIX"):
                use("no-such-topic")


@pytest.mark.integration
def test_a_start_that_retention_removed_is_the_oldest_record_kept(broker: object) -> None:
    """A stage that comes back after a long time goes on with what there is, and a topic with nothing left is read."""
    servers: str = broker.bootstrap_servers  # type: ignore[attr-defined]
    with closing(KafkaBus(servers)) as kafka:
        kafka.ensure(TopicSpec("removed"))
        append(kafka, "removed", *(b"%d" % n for n in range(10)))
        admin = AdminClient(connection(servers))

        def remove(before: int) -> None:
            for removed in admin.delete_records([TopicPartition("removed", 0, before)]).values():
                removed.result(DEADLINE_S)

        remove(7)
        with closing(kafka.reader("removed", {0: 2})) as reader:
            assert [record.offset for record in take(reader, 3)] == [7, 8, 9]
        remove(10)
        assert kafka.read("removed") == kafka.tail("removed", 3) == []


@pytest.mark.integration
def test_a_topic_that_is_refused_is_named(broker: object) -> None:
    """Who may not read a topic hears so instead of waiting for ever; asked again, it goes on."""
    servers: str = broker.bootstrap_servers  # type: ignore[attr-defined]
    with closing(KafkaBus(servers)) as kafka:
        kafka.ensure(TopicSpec("refused"))
        append(kafka, "refused", b"0")
        with closing(kafka.reader("refused")) as reader:
            reader._refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
            with pytest.raises(KafkaUnreachableError, match=r"does not give topic 'refused' .*exists and may be read"):
                reader.poll(0.2)
            assert values(take(reader, 1)) == [b"0"]


def fail_for_good(writer: Writer) -> None:
    """Have librdkafka itself put the writer's producer into its fatal state, as it does when it lost its place."""
    (library,) = LIBRDKAFKA
    assert isinstance(writer, KafkaWriter)
    # The binding's object holds the library's handle right after Python's own header.
    handle = ctypes.c_void_p.from_address(id(writer._producer) + object.__basicsize__)
    code = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert ctypes.CDLL(str(library)).rd_kafka_test_fatal_error(handle, code, b"for this test") == 0


@pytest.mark.integration
@pytest.mark.skipif(len(LIBRDKAFKA) != 1, reason="this system's confluent-kafka keeps librdkafka where it is not found")
@pytest.mark.parametrize("queued", [0, 3])
@pytest.mark.parametrize("told", ["flush", "send"])
def test_a_writer_whose_producer_is_done_for_goes_on_with_another(broker: object, queued: int, told: str) -> None:
    """An idempotent producer that Kafka no longer trusts is replaced: whoever writes next hears of it, once."""
    topic = f"fatal-{queued}-{told}"
    with closing(KafkaBus(broker.bootstrap_servers)) as kafka:  # type: ignore[attr-defined]
        kafka.ensure(TopicSpec(topic))
        with closing(kafka.writer()) as writer:
            writer.send(topic, b"before")
            writer.flush()
            for _ in range(queued):
                writer.send(topic, b"queued")
            fail_for_good(writer)
            with pytest.raises(KafkaUnreachableError, match=r"did not take a record .*"):
                writer.flush() if told == "flush" else writer.send(topic, b"refused")
            writer.send(topic, b"after")
            writer.flush()
        written = values(kafka.read(topic))
        assert (written[0], written[-1], written.count(b"after")) == (b"before", b"after", 1)
        assert b"refused" not in written
        with closing(kafka.writer()) as writer:
            fail_for_good(writer)


@pytest.mark.integration
@pytest.mark.timeout(100)
def test_an_outage_ends_for_readers_and_writers_and_does_not_keep_who_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer is closed although Kafka is away; another and a reader go on when it is back."""
    monkeypatch.setattr(kafka_bus, "CLOSE_S", 0.2)
    with EmbeddedKafka(tmp_path / "kafka") as first:
        servers = first.bootstrap_servers
        bus = KafkaBus(servers)
        bus.ensure(TopicSpec("outage"))
        closed, staying, reader = bus.writer(), bus.writer(), bus.reader("outage")
        append(bus, "outage", b"before")
        assert values(take(reader, 1)) == [b"before"]
    closed.send("outage", b"given up")
    with pytest.raises(KafkaUnreachableError, match="1 records were not acknowledged"):
        closed.flush(0.2)
    # The library by itself would wait for what is queued, five minutes.
    closed.close()
    staying.send("outage", b"kept")
    assert reader.poll(0.2) == []
    with EmbeddedKafka(tmp_path / "kafka", port=int(servers.rpartition(":")[2])), closing(bus), closing(reader):
        staying.flush(DEADLINE_S)
        staying.close()
        assert values(take(reader, 1)) == [b"kept"]
        assert bus.ends("outage") == {0: 2}


@pytest.mark.integration
def test_a_record_that_kafka_refuses_is_an_error_of_its_flush(broker: object) -> None:
    """What is too large is named when it is sent or flushed, and the next record is taken."""
    with closing(KafkaBus(broker.bootstrap_servers)) as kafka:  # type: ignore[attr-defined]
        kafka.ensure(TopicSpec("small", config={"max.message.bytes": "1000"}))
        with closing(kafka.writer()) as writer:
            writer.send("small", b"x" * 2_000)
            with pytest.raises(KafkaUnreachableError, match=r"did not take a record .*too large"):
                writer.flush()
            with pytest.raises(KafkaUnreachableError, match=r"did not take a record .*too large"):
                writer.send("small", b"x" * 2_000_000)
            writer.send("small", b"y")
            writer.flush()
        assert values(kafka.read("small")) == [b"y"]


@contextmanager
def mute_server() -> Iterator[str]:
    """Give the address of a server that takes connections and never says a word: no Kafka."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield "127.0.0.1:%d" % server.getsockname()[1]  # noqa: UP031


USES: dict[str, Callable[[KafkaBus], object]] = {
    "ensure": lambda bus: bus.ensure(TopicSpec("t")),
    "reader": lambda bus: bus.reader("t"),
    "writer": lambda bus: bus.writer(),
    "ends": lambda bus: bus.ends("t"),
    "tail": lambda bus: bus.tail("t", 1),
}


@pytest.mark.parametrize("use", USES)
def test_a_kafka_that_is_not_there_is_named(use: str) -> None:
    """Every call ends within its time with the setting, the address and two remedies."""
    with closing(KafkaBus("127.0.0.1:1", wait_s=0.2)) as bus:
        with pytest.raises(KafkaUnreachableError) as caught:
            USES[use](bus)
        for words in (
            "bootstrap_servers='127.0.0.1:1'",
            "waited 0.2 s",
            "pipeline.broker",
            "EMOSTREAM_BOOTSTRAP_SERVERS",
        ):
            assert words in str(caught.value)


# In a process of its own: what the library says on its standard error is seen, too.
GIVING_UP = """
import logging, sys
from pipeline.bus.kafka import KafkaBus
from pipeline.errors import KafkaUnreachableError
from pipeline.bus.topics import TopicSpec
logging.disable()
bus = KafkaBus(sys.argv[1], wait_s=0.5)
for use in (lambda: bus.ensure(TopicSpec("t")), lambda: bus.reader("t"), bus.writer, lambda: bus.ends("t")):
    try:
        use()
    except KafkaUnreachableError as error:
        print(error)
"""


def test_something_else_that_listens_is_no_kafka() -> None:
    """A server that takes the connection and says nothing is found out within the time given, by every call."""
    with mute_server() as address:
        command = [sys.executable, "-c", GIVING_UP, address]
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count(f"bootstrap_servers='{address}' (waited 0.5 s") == len(ended.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    "servers",
    ["", "localhost", "localhost:", ":9092", "localhost:kafka", "localhost:-1", "localhost:0", "localhost:99999",
     "127.0.0.1:1,", "a..b:9092", "x" * 70 + ".org:9092", "127.0.0.1:1 "],
)  # fmt: skip
def test_an_address_that_cannot_be_is_named(servers: str) -> None:
    """An address without host or port, or with an impossible one, is a setting's error and not a Kafka's."""
    with closing(KafkaBus(servers, wait_s=0.2)) as bus:
        with pytest.raises(SettingError, match=r"bootstrap_servers \(EMOSTREAM_BOOTSTRAP_SERVERS\) is ") as caught:
            bus.ends("t")
        assert repr(servers) in str(caught.value)


@pytest.mark.integration
def test_one_of_several_addresses_is_enough(broker: object) -> None:
    """A cluster's list of addresses may name a server that is down."""
    with closing(KafkaBus(f"127.0.0.1:1,{broker.bootstrap_servers}", wait_s=DEADLINE_S)) as bus:  # type: ignore[attr-defined]
        bus.ensure(TopicSpec("several"))
        assert bus.ends("several") == {0: 0}
