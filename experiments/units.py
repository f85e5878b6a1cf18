"""Units of time: the ledger counts nanoseconds, a recording milliseconds."""

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
MS_PER_MINUTE = 60_000
