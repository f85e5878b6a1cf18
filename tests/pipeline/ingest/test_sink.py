"""The sink of ingest against the real Kafka, through a broker that goes away and comes back."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import TopicSpec
from pipeline.ingest.sink import KafkaSink

pytestmark = pytest.mark.integration
DEADLINE_S = 60.0


def stored(servers: str, topic: str) -> Counter[bytes | None]:
    """Return how often each value lies in a topic."""
    with closing(KafkaBus(servers)) as bus:
        return Counter(record.value for record in bus.read(topic))


def test_everything_arrives_once_on_every_partition(broker: EmbeddedKafka) -> None:
    """What was acknowledged is in Kafka, each value once, spread over the partitions."""
    topic, values = "writer-all", [b"%d" % n for n in range(20_000)]
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic, 2))
        with closing(KafkaSink(broker.bootstrap_servers, topic, queue_max=len(values))) as writer:
            for start in range(0, len(values), 1_000):
                writer.write(values[start : start + 1_000])
                assert writer.wait(DEADLINE_S) == 0
        assert all(bus.ends(topic).values())
    assert stored(broker.bootstrap_servers, topic) == Counter(values)


def test_the_largest_flush_fits_into_the_queue(broker: EmbeddedKafka) -> None:
    """A flush of `queue_max` reactions is taken at once."""
    topic, values = "writer-queue", [b"%d" % n for n in range(500)]
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic))
    with closing(KafkaSink(broker.bootstrap_servers, topic, queue_max=len(values))) as writer:
        writer.write(values)
        assert writer.wait(DEADLINE_S) == 0
    assert stored(broker.bootstrap_servers, topic) == Counter(values)


def test_a_broker_that_comes_back_has_everything_once_and_in_order(tmp_path: Path) -> None:
    """While it is away nothing is given up; on the same port and data, nothing is lost, doubled or disordered."""
    topic, size = "writer-outage", 50
    kafka = EmbeddedKafka(tmp_path).start()
    servers = kafka.bootstrap_servers
    with closing(KafkaBus(servers)) as bus:
        bus.ensure(TopicSpec(topic))
    acknowledged = threading.Condition()
    flushes = 0
    over = threading.Event()

    def flush_on_and_on() -> None:
        nonlocal flushes
        # The writer is made where it is used, as the flusher does.
        with closing(KafkaSink(servers, topic, queue_max=size)) as writer:
            while not over.is_set():
                writer.write([b"%d" % n for n in range(flushes * size, (flushes + 1) * size)])
                while writer.wait(0.5):
                    pass
                with acknowledged:
                    flushes += 1
                    acknowledged.notify_all()

    def await_flushes(more: int) -> None:
        with acknowledged:
            wanted = flushes + more
            assert acknowledged.wait_for(lambda: flushes >= wanted, DEADLINE_S)

    thread = threading.Thread(target=flush_on_and_on, daemon=True)
    thread.start()
    try:
        await_flushes(20)
        kafka.stop()
        before = flushes
        with acknowledged:
            # One flush may have been acknowledged while Kafka was stopping; then nothing moves.
            assert not acknowledged.wait_for(lambda: flushes > before + 1, 1.5)
        kafka = EmbeddedKafka(tmp_path, port=int(servers.rpartition(":")[2])).start()
        await_flushes(20)
        over.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        with closing(KafkaBus(servers)) as bus:
            in_kafka = [record.value for record in bus.read(topic)]
        assert in_kafka == [b"%d" % n for n in range(flushes * size)]
    finally:
        over.set()
        kafka.stop()
