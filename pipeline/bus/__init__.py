"""The interface between stages and Kafka: the real implementation and its in-memory twin."""
