"""KafkaReader: errors of a topic, reported once."""

from __future__ import annotations

from contextlib import closing

import pytest
from confluent_kafka import KafkaError, Producer

from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError
from tests.harness.stages.bus import append, take, values
from tests.harness.waiting import until


@pytest.mark.integration
def test_refused_topic_raises_once_and_reading_goes_on(broker: object) -> None:
    """A client that may not read a topic gets an error instead of waiting; the next poll tries again."""
    servers: str = broker.bootstrap_servers  # type: ignore[attr-defined]
    with closing(KafkaBus(servers)) as kafka:
        kafka.ensure(TopicSpec("refused"))
        append(kafka, "refused", b"0")
        with closing(kafka.reader("refused")) as reader:
            reader._refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
            with pytest.raises(KafkaUnreachableError, match=r"refuses topic 'refused' .*that this client may read it"):
                reader.poll(0.2)
            assert values(take(reader, 1)) == [b"0"]


@pytest.mark.integration
@pytest.mark.parametrize("end", ["committed", "aborted", "open"])
def test_transaction_of_another_program_holds_up_no_reader(broker: object, end: str) -> None:
    """Its marker is the last offset of the topic, and no record: reading to the end ends there, and goes on."""
    servers: str = broker.bootstrap_servers  # type: ignore[attr-defined]
    topic = f"marker-{end}"
    producer = Producer({"bootstrap.servers": servers, "transactional.id": topic})
    with closing(KafkaBus(servers)) as kafka:
        kafka.ensure(TopicSpec(topic))
        append(kafka, topic, b"0")
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic, b"1")
        producer.flush(20)
        if end == "committed":
            producer.commit_transaction(20)
        elif end == "aborted":
            producer.abort_transaction(20)
        # Kafka writes the marker after it has answered.
        ends = {0: 2 if end == "open" else 3}
        until(lambda: kafka.ends(topic) == ends, "the marker is written")
        with closing(kafka.reader(topic)) as reader:
            assert values(list(reader.until(ends, timeout_s=240))) == [b"0", b"1"]
            append(kafka, topic, b"2")
            assert values(take(reader, 1)) == [b"2"]
        assert values(kafka.tail(topic, 1)) == [b"2"]
