"""The instrument: it drives the chain with load and measures latency and accuracy."""
