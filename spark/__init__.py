"""The aggregation: Spark makes one window of each micro-batch of reactions."""
