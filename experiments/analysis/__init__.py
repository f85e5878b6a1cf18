"""From the frames of a run to its figures and its verdict, without I/O."""
