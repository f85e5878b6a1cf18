"""The embedded Kafka: one KRaft node on loopback that lives exactly as long as its owner."""

from pipeline.broker.embedded import EmbeddedKafka

__all__ = ["EmbeddedKafka"]
