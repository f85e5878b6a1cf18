"""What may be concluded from runs: slopes, intervals, capacity, scaling and limits, each a function of figures."""
