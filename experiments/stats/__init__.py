"""Statistics over runs: intervals, capacity, scaling and warm-up, each a function of figures."""
