"""Metrics of the Spark job, updated once per micro-batch. Process metrics are those of the driver's Python process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram, Metric

from pipeline import logs
from pipeline.bus.base import Bus
from pipeline.messages import Window
from pipeline.metrics.windows import WindowMeters
from pipeline.streaming_progress import StreamingProgress, lag
from pipeline.turns import Turns

log = logs.get(__name__)

STAGE = "spark"
QUERY_S = 300.0
"""How long the query may report nothing, besides two triggers: a batch of the largest window takes less, and an idle
query reports every ten seconds, or at each trigger.
"""
BATCH_BUCKETS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0)


class BatchMeters:
    """Metrics of the micro-batches that read `topic` every `trigger_s`."""

    def __init__(self, topic: str, trigger_s: float) -> None:
        self.windows = WindowMeters(STAGE)
        self.epoch = ""
        self.loop = Turns()
        """Whether the driver's loop goes on, which asks the JVM at each turn."""
        self.query = Turns()
        """Whether the query goes on: it begins a batch, ends one, or reports that it is idle."""
        self._query_s = QUERY_S + 2 * trigger_s
        self._topic = topic
        self._seconds = Histogram(
            "emostream_spark_batch_seconds",
            "Duration of the micro-batches that read records, from trigger to commit (Spark's triggerExecution).",
            registry=None,
            buckets=BATCH_BUCKETS_S,
        )
        self._rows = Counter("emostream_spark_rows", "Records read by micro-batches.", registry=None)
        self._reactions = Counter("emostream_spark_reactions", "Reactions counted in windows.", registry=None)
        self._malformed = Counter("emostream_spark_malformed", "Unreadable records, probes included.", registry=None)
        self._repeats = Counter(
            "emostream_spark_repeats", "Reactions not counted, because their id was counted before.", registry=None
        )
        self._trigger = Gauge(
            "emostream_spark_trigger_seconds",
            "The trigger interval; a micro-batch must take less time than this.",
            registry=None,
        )
        self._lag = Gauge(
            "emostream_spark_lag_records",
            "Records not yet read when the last micro-batch ended; NaN if Kafka did not answer.",
            registry=None,
        )
        self._trigger.set(trigger_s)

    def health(self) -> dict[str, object]:
        """What `GET /healthz` answers."""
        stalled_s = max(self.loop.stalled_s(), self.query.stalled_s() - self._query_s)
        return {
            "status": "ok" if self.epoch else "starting",
            "stage": STAGE,
            "epoch": self.epoch or None,
            "stalled_s": round(stalled_s, 3),
        }

    def emitted(self, window: Window) -> None:
        """Count a window that Kafka has acknowledged."""
        self.windows.passed(window, window.emitted_ns)
        self._reactions.inc(window.total)
        self._malformed.inc(window.malformed)
        self._repeats.inc(window.repeats or 0)

    def progress(self, progress: StreamingProgress, bus: Bus) -> None:
        """Take Spark's progress report of one trigger, and look up the lag on `bus`."""
        # Spark reports idle triggers as well.
        if progress.num_input_rows:
            self._seconds.observe(progress.duration_ms["triggerExecution"] / 1000)
            self._rows.inc(progress.num_input_rows)
        for source in progress.sources:
            self._update_lag((source.end_offset or {}).get(self._topic, {}), bus)

    def _update_lag(self, read_to: Mapping[str, int], bus: Bus) -> None:
        if not read_to:
            return
        try:
            ends = bus.ends(self._topic)
        except Exception as error:
            # Any error of Kafka's client only costs this figure; the micro-batches handle their own errors.
            log.warning("the lag is unknown", error=str(error))
            self._lag.set(float("nan"))
            return
        self._lag.set(lag(ends, read_to))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self.windows.collect()
        counters = (self._rows, self._reactions, self._malformed, self._repeats)
        for family in (self._seconds, *counters, self._trigger, self._lag):
            yield from family.collect()
