"""Units of time: the ledger counts nanoseconds, a recording milliseconds."""

from pipeline.units import NS_PER_MS, NS_PER_S

NS_PER_US = 1_000
MS_PER_MINUTE = 60_000

__all__ = ["MS_PER_MINUTE", "NS_PER_MS", "NS_PER_S", "NS_PER_US"]
