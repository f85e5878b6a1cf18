"""What ingest is made of: from a request body to a flush to Kafka."""
