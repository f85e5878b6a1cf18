"""One measured run: the chain, the load, the audience, and reading Kafka back."""
