"""The defaults of a made-up recording, apart from what makes it: a command line shows them without loading that."""

SEED = 1
MINUTES = 40
MINUTES_MAX = 24 * 60
