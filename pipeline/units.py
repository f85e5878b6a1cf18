"""Units of time: the chain and the instrument count nanoseconds."""

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
