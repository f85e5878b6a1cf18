"""The embedded Kafka: one KRaft node on loopback that ends with the process that started it."""

from pipeline.broker.embedded import EmbeddedKafka

__all__ = ["EmbeddedKafka"]
