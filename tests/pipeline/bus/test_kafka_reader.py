"""KafkaReader: errors of a topic, reported once."""

from __future__ import annotations

from contextlib import closing

import pytest
from confluent_kafka import KafkaError

from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError
from tests.harness.stages.bus import append, take, values


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
