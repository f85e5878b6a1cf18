"""The load: the plan of what users send, and the processes that send it."""
