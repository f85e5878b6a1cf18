"""What an operator is told of the chain: how much comes and goes, how long it takes, and what is wrong.

Pure: what was read from Kafka and the time of day go in, one JSON document comes out. Memory is bounded: the last
windows, micro-batches and samples are kept, older ones are forgotten.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pipeline.messages import Window
from pipeline.registry.web.alerts import NS, Facts, Member, alerts
from pipeline.streaming_progress import StreamingProgress, lag

WINDOWS = 100
BATCHES = 100
SAMPLES = 150
# Ingest flushes in bursts: a rate is taken over so many samples.
RATE_SAMPLES = 5
COUNTED_S = 60.0


class Sample(NamedTuple):
    """The end of `emoji-events` at one moment: records ever appended, and those Spark has not read (None: unknown)."""

    at_ns: int
    appended: int
    lag: int | None


class ChainStatus:
    """What is known of one chain. Nothing here is safe for threads."""

    def __init__(self, trigger_s: float) -> None:
        self._trigger_s = trigger_s
        self._windows: deque[Window] = deque(maxlen=WINDOWS)
        self._batches: deque[StreamingProgress] = deque(maxlen=BATCHES)
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._read: Mapping[str, int] | None = None
        self._reported_ns: int | None = None
        self._unreadable: str | None = None

    # what comes from Kafka

    def take_window(self, window: Window) -> None:
        """Take one record of `emoji-aggregates`; one that is there twice counts once."""
        if all(window.event_id != known.event_id for known in self._windows):
            # Only sums are shown, and a busy window lists a thousand types.
            self._windows.append(msgspec.structs.replace(window, reactions=[], carried=msgspec.UNSET))

    def take_report(self, report: StreamingProgress) -> None:
        """Take one record of `spark-progress`; idle triggers are reported as well, and say what was read."""
        self._reported_ns = round(report.timestamp.timestamp() * NS)
        for source in report.sources:
            if source.end_offset:
                self._read = next(iter(source.end_offset.values()))
        if report.num_input_rows and "triggerExecution" in report.duration_ms:
            self._batches.append(report)

    def take_ends(self, ends: Mapping[int, int], now_ns: int) -> None:
        """Take the offset after the last record of each partition of `emoji-events`, as they are now."""
        behind = None
        if self._read is not None:
            behind = lag(ends, self._read)
        self._samples.append(Sample(now_ns, sum(ends.values()), behind))
        self._unreadable = None

    def take_failure(self, reason: str) -> None:
        """Take it that the ends could not be looked up."""
        self._unreadable = reason

    # what is told

    @property
    def newest_event_id(self) -> str | None:
        """The id of the newest window."""
        return self._windows[-1].event_id if self._windows else None

    def document(self, members: Iterable[Member], now_ns: int) -> dict[str, Any]:
        """Return what `GET /ops/data` answers; rates are a second, what is not known is null."""
        held = list(members)
        newest = self._samples[-1] if self._samples else None
        batches_s = [batch.duration_ms["triggerExecution"] / 1000 for batch in self._batches]
        p95_s = quantile(batches_s, 0.95)
        arriving_per_s = self._arriving(len(self._samples) - 1)
        facts = Facts(
            trigger_s=self._trigger_s,
            now_ns=now_ns,
            lag=None if newest is None else newest.lag,
            arriving_per_s=arriving_per_s,
            batch_s=batches_s[-1] if batches_s else None,
            reported_ns=self._reported_ns,
            unreadable=self._unreadable,
            newest=self._windows[-1] if self._windows else None,
            members=held,
        )
        return {
            "now_ms": now_ns // 1_000_000,
            "trigger_s": self._trigger_s,
            "arriving_per_s": arriving_per_s,
            "counted_per_s": self._counted(now_ns),
            "lag": facts.lag,
            "batch": {
                "newest_s": facts.batch_s,
                "p50_s": quantile(batches_s, 0.5),
                "p95_s": p95_s,
                "headroom": None if p95_s is None else round(p95_s / self._trigger_s, 4),
            },
            "watching": sum(member.said.clients for member in held if member.live),
            "malformed": sum(window.malformed for window in self._windows),
            "windows": [window_row(window) for window in self._windows],
            "batches": [
                {
                    "batch": batch.batch_id,
                    "trigger_ms": round(batch.timestamp.timestamp() * 1000),
                    "batch_s": batch_s,
                    "rows": batch.num_input_rows,
                }
                for batch, batch_s in zip(self._batches, batches_s, strict=True)
            ],
            "samples": [
                {"at_ms": sample.at_ns // 1_000_000, "arriving_per_s": self._arriving(place), "lag": sample.lag}
                for place, sample in enumerate(self._samples)
            ],
            "subscribers": [subscriber_row(member, now_ns) for member in held],
            "alerts": [{"what": found.what, "detail": found.detail} for found in alerts(facts)],
        }

    def _arriving(self, place: int) -> float | None:
        """Records a second appended in the `RATE_SAMPLES` before a sample."""
        if place < 1:
            return None
        newest, before = self._samples[place], self._samples[max(0, place - RATE_SAMPLES)]
        return round((newest.appended - before.appended) * NS / max(1, newest.at_ns - before.at_ns), 2)

    def _counted(self, now_ns: int) -> float:
        """Reactions a second in the windows of the last minute; a chain nobody uses counts none."""
        since_ns = now_ns - round(COUNTED_S * NS)
        return round(sum(w.total for w in self._windows if w.emitted_ns > since_ns) / COUNTED_S, 2)


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the smallest value that at least the share `q` of all do not exceed; None where there are none."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)] if values else None


def window_row(window: Window) -> dict[str, Any]:
    """Return what is shown of a window; `published_s` is from its trigger until its counts were ready."""
    return {
        "id": window.event_id,
        "trigger_ms": window.trigger_ns // 1_000_000,
        "published_s": round((window.emitted_ns - window.trigger_ns) / NS, 3),
        "total": window.total,
        "malformed": window.malformed,
    }


def subscriber_row(member: Member, now_ns: int) -> dict[str, Any]:
    """Return what is shown of a subscriber."""
    said = member.said
    return {
        "cluster": said.cluster,
        "subscriber": said.subscriber,
        "clients": said.clients,
        "live": member.live,
        "age_s": round((now_ns - said.announced_ns) / NS, 1),
        "last_event_id": said.last_event_id,
    }
