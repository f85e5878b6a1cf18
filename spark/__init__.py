"""The aggregation: Kafka to windows, one Spark micro-batch each."""
