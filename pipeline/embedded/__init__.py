"""What the embedded Kafka is made of: its data directory and its process."""
