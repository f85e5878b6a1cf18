"""KafkaSink against the real Kafka, also through a broker that stops and starts again."""

from __future__ import annotations

import os
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
    """Return the number of records in a topic by value."""
    with closing(KafkaBus(servers)) as bus:
        return Counter(record.value for record in bus.read(topic))


def test_every_value_arrives_once_on_all_partitions(broker: EmbeddedKafka) -> None:
    """Acknowledged values are in Kafka, each once, spread over the partitions."""
    topic, values = "sink-all", [b"%d" % n for n in range(20_000)]
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic, 2))
        with closing(KafkaSink(broker.bootstrap_servers, topic, queue_max=len(values))) as sink:
            for start in range(0, len(values), 1_000):
                sink.write(values[start : start + 1_000])
                assert sink.wait(DEADLINE_S) == 0
        assert all(bus.ends(topic).values())
    assert stored(broker.bootstrap_servers, topic) == Counter(values)


def test_flush_of_queue_max_fits_into_the_queue(broker: EmbeddedKafka) -> None:
    """A flush of `queue_max` reactions is accepted at once."""
    topic, values = "sink-queue", [b"%d" % n for n in range(500)]
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic))
    with closing(KafkaSink(broker.bootstrap_servers, topic, queue_max=len(values))) as sink:
        sink.write(values)
        assert sink.wait(DEADLINE_S) == 0
    assert stored(broker.bootstrap_servers, topic) == Counter(values)


def test_refused_values_are_named(broker: EmbeddedKafka) -> None:
    """What the topic does not take is lost, with the reason; the rest of the flush is there."""
    topic = "sink-refused"
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic, config={"max.message.bytes": "1000"}))
    # Chance cannot be compressed.
    large = os.urandom(2_000)
    with closing(KafkaSink(broker.bootstrap_servers, topic, queue_max=10)) as sink:
        sink.write([b"small"])
        assert sink.wait(DEADLINE_S) == 0
        assert sink.refusals == {}
        sink.write([large])
        assert sink.wait(DEADLINE_S) == 0
        assert list(sink.refusals) == [large]
        assert "too large" in sink.refusals[large]
        assert sink.lost == 1
    assert stored(broker.bootstrap_servers, topic) == Counter([b"small"])


def test_broker_outage_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Nothing is given up during the outage; after a restart on the same data every value is there once, in order."""
    topic, size = "sink-outage", 50
    kafka = EmbeddedKafka(tmp_path).start()
    servers = kafka.bootstrap_servers
    with closing(KafkaBus(servers)) as bus:
        bus.ensure(TopicSpec(topic))
    acknowledged = threading.Condition()
    flushes = 0
    over = threading.Event()

    def flush_repeatedly() -> None:
        nonlocal flushes
        # The sink is opened in the thread that uses it, as the flusher does.
        with closing(KafkaSink(servers, topic, queue_max=size)) as sink:
            while not over.is_set():
                sink.write([b"%d" % n for n in range(flushes * size, (flushes + 1) * size)])
                while sink.wait(0.5):
                    pass
                with acknowledged:
                    flushes += 1
                    acknowledged.notify_all()

    def await_flushes(more: int) -> None:
        with acknowledged:
            target = flushes + more
            assert acknowledged.wait_for(lambda: flushes >= target, DEADLINE_S)

    thread = threading.Thread(target=flush_repeatedly, daemon=True)
    thread.start()
    try:
        await_flushes(20)
        kafka.stop()
        before = flushes
        with acknowledged:
            # One flush may have been acknowledged while Kafka was stopping; then none is.
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
