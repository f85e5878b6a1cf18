"""The seam to Kafka: what stages ask of it, the real part and its in-memory twin."""
