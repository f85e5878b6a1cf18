"""What may be concluded from runs: intervals, capacity, scaling and warm-up, each a function of figures."""
