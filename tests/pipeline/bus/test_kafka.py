"""KafkaBus beyond the contract: exact reads, topics that are missing, and addresses without a Kafka."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.bus.connection import client_config
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import TopicSpec
from pipeline.errors import EmoStreamError, KafkaUnreachableError, SettingError
from tests.harness.bus import DEADLINE_S, append, take

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
def test_missing_topic_is_named_with_remedy(broker: object) -> None:
    """The error names the topic, the server and the remedy."""
    with closing(KafkaBus(broker.bootstrap_servers)) as kafka:  # type: ignore[attr-defined]
        for use in (kafka.reader, kafka.ends, lambda topic: kafka.tail(topic, 1)):
            with pytest.raises(EmoStreamError, match=r"topic 'no-such-topic' does not exist.*EMOSTREAM_TOPIC_PREFIX"):
                use("no-such-topic")


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


class StartingLeader:
    """A consumer of a broker that does not lead a new partition yet, `times` times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        """Fail, or return the offsets of an empty partition."""
        self.times -= 1
        if self.times >= 0:
            raise KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
        return 0, 0


def test_new_partition_without_leader_is_asked_again() -> None:
    """Until `wait_s` is over; then the error is raised."""
    assert KafkaBus("k:1", wait_s=20.0)._bounds(StartingLeader(3), "t", 0) == (0, 0)  # type: ignore[arg-type]
    with pytest.raises(KafkaUnreachableError, match="NOT_LEADER"):
        KafkaBus("k:1", wait_s=0.0)._bounds(StartingLeader(10**9), "t", 0)  # type: ignore[arg-type]


@contextmanager
def mute_server() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers."""
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
def test_unreachable_kafka_is_named_with_remedies(use: str) -> None:
    """Every call fails within `wait_s`; the error has the setting, the address and two remedies."""
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


# Runs in a separate process, so that output of the library on standard error is seen as well.
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


def test_server_that_never_answers_is_unreachable() -> None:
    """Every call to a server that accepts the connection and stays silent fails within `wait_s`."""
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
def test_malformed_address_is_a_setting_error(servers: str) -> None:
    """A host or port that is missing or impossible raises SettingError, not KafkaUnreachableError."""
    with closing(KafkaBus(servers, wait_s=0.2)) as bus:
        with pytest.raises(SettingError, match=r"bootstrap_servers \(EMOSTREAM_BOOTSTRAP_SERVERS\) is ") as caught:
            bus.ends("t")
        assert repr(servers) in str(caught.value)


@pytest.mark.integration
def test_one_reachable_address_of_several_is_enough(broker: object) -> None:
    """A cluster's list of addresses may name a server that is down."""
    with closing(KafkaBus(f"127.0.0.1:1,{broker.bootstrap_servers}", wait_s=DEADLINE_S)) as bus:  # type: ignore[attr-defined]
        bus.ensure(TopicSpec("several"))
        assert bus.ends("several") == {0: 0}
