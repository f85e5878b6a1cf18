"""A chain to play with in a notebook: for looking, not for quoting."""
