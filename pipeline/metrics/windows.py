"""Metrics of the windows that a stage received: the same for every stage from Spark on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Counter, Gauge, Histogram, Metric

from pipeline.messages import Window
from pipeline.units import NS_PER_S

# A window leaves Spark about 0.3 s after its trigger and reaches the clients a few tenths of a second later. The last
# bound is above the trigger interval.
LATENCY_BUCKETS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
REASONS = ("duplicate", "malformed", "implausible", "unsendable")


class WindowMeters:
    """Metrics of one stage, named as in `hops`; updated once per window."""

    def __init__(self, stage: str) -> None:
        self._forwarded = Counter(
            "emostream_windows_forwarded", "Windows that this stage forwarded.", ["stage"], registry=None
        )
        self._dropped = Counter(
            "emostream_windows_dropped",
            "Records that this stage did not forward: duplicates, unreadable records, windows whose number cannot "
            "follow, and windows that cannot be sent.",
            ["stage", "reason"],
            registry=None,
        )
        self._latency = Histogram(
            "emostream_window_latency_seconds",
            "Time from a window's trigger until this stage forwarded it.",
            ["stage"],
            registry=None,
            buckets=LATENCY_BUCKETS_S,
        )
        self._last = Gauge(
            "emostream_window_last_timestamp_seconds",
            "When this stage last forwarded a window, in seconds since the epoch; 0 before the first one.",
            ["stage"],
            registry=None,
        )
        self._passed = self._forwarded.labels(stage)
        self._took = self._latency.labels(stage)
        self._when = self._last.labels(stage)
        self._by_reason = {reason: self._dropped.labels(stage, reason) for reason in REASONS}

    def passed(self, window: Window, sent_ns: int) -> None:
        """Count a window that was forwarded at `sent_ns`, epoch nanoseconds."""
        self._passed.inc()
        # The clocks of two machines may differ by more than the window took between them.
        self._took.observe(max(0, sent_ns - window.trigger_ns) / NS_PER_S)
        self._when.set(sent_ns / NS_PER_S)

    def dropped(self, reason: str) -> None:
        """Count a record that was not forwarded, for one of REASONS."""
        self._by_reason[reason].inc()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        families: Iterable[Counter | Gauge | Histogram] = (self._forwarded, self._dropped, self._latency, self._last)
        for family in families:
            yield from family.collect()
