"""KafkaSink against the real Kafka, also through a broker that stops and starts again."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import TopicSpec
from pipeline.ingest import sink as sink_module
from pipeline.ingest.sink import KafkaSink
from tests.harness.stages.bus import fail_permanently, needs_librdkafka
from tests.harness.waiting import until

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
        with closing(KafkaSink(broker.bootstrap_servers, topic)) as sink:
            for start in range(0, len(values), 1_000):
                sink.write(values[start : start + 1_000])
                assert sink.wait(DEADLINE_S) == 0
        assert all(bus.ends(topic).values())
    assert stored(broker.bootstrap_servers, topic) == Counter(values)


@contextmanager
def busy_threads() -> Iterator[None]:
    """Have other threads hold the interpreter's lock in turn."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in threads:
            each.join()


@pytest.mark.parametrize(("size", "count"), [(0, 25_000), (1_200, 2_000)])
def test_large_flush_goes_in_pieces(broker: EmbeddedKafka, size: int, count: int) -> None:
    """It may have more records, or bytes, than the library is given at a time; all arrive once, in order."""
    topic, values = f"sink-large-{size}", [b"%d" % n + bytes(size) for n in range(count)]
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic))
        with closing(KafkaSink(broker.bootstrap_servers, topic)) as sink:
            sink.write(values)
            assert sink.wait(0) == count
            assert 0 < len(sink._producer) < count
            assert sink.wait(DEADLINE_S) == 0
        assert [record.value for record in bus.read(topic)] == values


@needs_librdkafka
def test_producer_that_failed_permanently_is_replaced(broker: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was given last goes out again, and only that may be there twice."""
    monkeypatch.setattr(sink_module, "PIECE_MAX", 10)
    topic, values = "sink-fatal", [b"%d" % n for n in range(50)]
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic, 2))
    with closing(KafkaSink(broker.bootstrap_servers, topic)) as sink:
        sink.write(values[:20])
        assert sink.wait(DEADLINE_S) == 0
        # Before a piece, and while one waits for Kafka.
        fail_permanently(sink._producer)
        sink.write(values[20:])
        # So briefly that a piece may still be under way.
        until(lambda: sink.wait(0.002) <= 20, "a piece is in Kafka", DEADLINE_S, 0.0)
        fail_permanently(sink._producer)
        assert sink.wait(DEADLINE_S) == 0
        assert (sink.lost, sink.refusals) == (0, {})
        assert sink.errors >= 2
        fail_permanently(sink._producer)
    found = stored(broker.bootstrap_servers, topic)
    assert found.keys() == set(values)
    assert sum(found.values()) <= len(values) + 10
    assert all(found[value] == 1 for value in values[:20])


def test_silent_kafka_costs_no_cpu(tmp_path: Path) -> None:
    """A flush that waits for Kafka waits, and no thread of the library asks without a pause.

    It did if the first records of a flush left while a busy worker still handed over the others.
    """
    values = [b"%d" % n + bytes(150) for n in range(20_000)]
    with EmbeddedKafka(tmp_path) as kafka:
        with closing(KafkaBus(kafka.bootstrap_servers)) as bus:
            bus.ensure(TopicSpec("sink-silent", 2))
        with closing(KafkaSink(kafka.bootstrap_servers, "sink-silent")) as sink:
            sink.write(values)
            assert sink.wait(DEADLINE_S) == 0
            broker_process = psutil.Process(kafka.pid)
            broker_process.suspend()
            try:
                with busy_threads():
                    sink.write(values)
                    sink.wait(0.2)
                used_s = time.process_time()
                assert sink.wait(2.0) == len(values)
                used_s = time.process_time() - used_s
            finally:
                broker_process.resume()
            assert sink.wait(DEADLINE_S) == 0
        # A thread that does not pause has a twentieth of a core on the busiest machine.
        assert used_s < 0.1
        assert stored(kafka.bootstrap_servers, "sink-silent") == Counter(dict.fromkeys(values, 2))


def test_refused_values_are_named(broker: EmbeddedKafka) -> None:
    """What the topic does not take is lost, with the reason; the rest of the flush is there."""
    topic = "sink-refused"
    with closing(KafkaBus(broker.bootstrap_servers)) as bus:
        bus.ensure(TopicSpec(topic, config={"max.message.bytes": "1000"}))
    # Chance cannot be compressed.
    large = os.urandom(2_000)
    with closing(KafkaSink(broker.bootstrap_servers, topic)) as sink:
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
        with closing(KafkaSink(servers, topic)) as sink:
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
