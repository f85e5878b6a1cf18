"""What several tests need: waiting, builders of messages, doubles, processes, HTTP, and the chains they share."""
