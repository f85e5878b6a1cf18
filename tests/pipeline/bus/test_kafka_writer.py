"""KafkaWriter: refused records, outages, and a producer that fails permanently."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from pipeline.broker import EmbeddedKafka
from pipeline.bus import kafka_writer
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError
from tests.harness.stages.bus import DEADLINE_S, append, fail_permanently, needs_librdkafka, take, values


@pytest.mark.integration
@needs_librdkafka
@pytest.mark.parametrize("queued", [0, 3])
@pytest.mark.parametrize("method", ["flush", "send"])
def test_permanently_failed_producer_is_replaced(broker: object, queued: int, method: str) -> None:
    """The next write raises the error once; the write after it succeeds with a new producer."""
    topic = f"fatal-{queued}-{method}"
    with closing(KafkaBus(broker.bootstrap_servers)) as kafka:  # type: ignore[attr-defined]
        kafka.ensure(TopicSpec(topic))
        with closing(kafka.writer()) as writer:
            writer.send(topic, b"before")
            writer.flush()
            for _ in range(queued):
                writer.send(topic, b"queued")
            fail_permanently(writer._producer)
            with pytest.raises(KafkaUnreachableError, match=r"did not take a record .*"):
                writer.flush() if method == "flush" else writer.send(topic, b"refused")
            writer.send(topic, b"after")
            writer.flush()
        written = values(kafka.read(topic))
        assert (written[0], written[-1], written.count(b"after")) == (b"before", b"after", 1)
        assert b"refused" not in written
        with closing(kafka.writer()) as writer:
            fail_permanently(writer._producer)


@pytest.mark.integration
def test_readers_and_writers_survive_an_outage_and_close_during_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writer closes while Kafka is down; others and a reader go on after it returns, one without its old record."""
    monkeypatch.setattr(kafka_writer, "CLOSE_S", 0.2)
    with EmbeddedKafka(tmp_path / "kafka") as first:
        servers = first.bootstrap_servers
        bus = KafkaBus(servers)
        bus.ensure(TopicSpec("outage"))
        closed, staying, late, reader = bus.writer(), bus.writer(), bus.writer(), bus.reader("outage")
        append(bus, "outage", b"before")
        assert values(take(reader, 1)) == [b"before"]
    closed.send("outage", b"given up")
    with pytest.raises(KafkaUnreachableError, match="1 records were not acknowledged"):
        closed.flush(0.2)
    late.send("outage", b"given up as well")
    with pytest.raises(KafkaUnreachableError, match="1 records were not acknowledged"):
        late.flush(0.2)
    # The library's own close would wait five minutes for the queued record.
    closed.close()
    staying.send("outage", b"kept")
    assert reader.poll(0.2) == []
    with EmbeddedKafka(tmp_path / "kafka", port=int(servers.rpartition(":")[2])), closing(bus), closing(reader):
        staying.flush(DEADLINE_S)
        staying.close()
        assert values(take(reader, 1)) == [b"kept"]
        # What was given up is not written later, and no later flush is blamed for it.
        late.send("outage", b"after")
        late.flush(DEADLINE_S)
        late.close()
        assert values(take(reader, 1)) == [b"after"]
        assert bus.ends("outage") == {0: 3}


@pytest.mark.integration
def test_refused_record_raises_at_send_or_flush(broker: object) -> None:
    """A record that is too large raises; the next record is accepted."""
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
