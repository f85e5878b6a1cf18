"""The analysis of a run: its figures and its verdict from its frames, without I/O."""
