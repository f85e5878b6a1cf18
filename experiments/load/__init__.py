"""The load: what a crowd is planned to send, and the processes that send it."""
