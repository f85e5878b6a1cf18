"""Ingest: `POST /reactions`, from a request body to a record in Kafka."""
