"""The state of a chain for its operator: rates, times and alerts.

Pure: records from Kafka and the time of day go in, one JSON document comes out. Memory is bounded: only the last
windows, micro-batches and samples are kept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pipeline.http_messages import AlertRow, BatchRow, BatchTimes, MemberRow, OpsData, SampleRow, WindowRow
from pipeline.messages import DeadLetter, Window
from pipeline.registry.web.alerts import Facts, Member, alerts
from pipeline.streaming_progress import StreamingProgress, lag
from pipeline.units import NS_PER_S

WINDOWS = 100
BATCHES = 100
SAMPLES = 150
LETTERS = 10_000
# Ingest flushes in bursts: a rate is taken over this number of samples.
RATE_SAMPLES = 5
COUNTED_S = 60.0


class Sample(NamedTuple):
    """`emoji-events` at one moment: records appended since its beginning, and records that Spark has not read.

    `lag` is None when it is not known.
    """

    at_ns: int
    appended: int
    lag: int | None


class ChainStatus:
    """The known state of one chain. It is not safe for threads."""

    def __init__(self, trigger_s: float) -> None:
        self._trigger_s = trigger_s
        self._windows: deque[Window] = deque(maxlen=WINDOWS)
        self._batches: deque[StreamingProgress] = deque(maxlen=BATCHES)
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._letters: dict[str, None] = {}
        self._read: Mapping[str, int] | None = None
        self._reported_ns: int | None = None
        self._unreadable: str | None = None

    # records from Kafka

    def add_window(self, window: Window) -> None:
        """Add one record of `emoji-aggregates`; a duplicate counts once."""
        if all(window.event_id != other.event_id for other in self._windows):
            # Only totals are shown, and a busy window lists a thousand types.
            self._windows.append(
                msgspec.structs.replace(window, reactions=[], carried=msgspec.UNSET, appended_ms=msgspec.UNSET)
            )

    def add_progress(self, progress: StreamingProgress) -> None:
        """Add one record of `spark-progress`; idle triggers are reported too, with the offsets read."""
        self._reported_ns = round(progress.timestamp.timestamp() * NS_PER_S)
        for source in progress.sources:
            if source.end_offset:
                self._read = next(iter(source.end_offset.values()))
        if progress.num_input_rows and "triggerExecution" in progress.duration_ms:
            self._batches.append(progress)

    def add_ends(self, ends: Mapping[int, int], now_ns: int) -> None:
        """Add the current offset after the last record of each partition of `emoji-events`."""
        unread = None if self._read is None else lag(ends, self._read)
        self._samples.append(Sample(now_ns, sum(ends.values()), unread))
        self._unreadable = None

    def add_letter(self, name: str, letter: DeadLetter | None) -> None:
        """Add one record of `dead-letters`; None: the letter was taken out."""
        self._letters.pop(name, None)
        if letter is not None:
            self._letters[name] = None
            if len(self._letters) > LETTERS:
                del self._letters[next(iter(self._letters))]

    def add_failure(self, reason: str) -> None:
        """Note that the ends could not be read."""
        self._unreadable = reason

    # output

    @property
    def newest_event_id(self) -> str | None:
        """The id of the newest window."""
        return self._windows[-1].event_id if self._windows else None

    def document(self, members: Iterable[Member], now_ns: int) -> OpsData:
        """Return the document of `GET /ops/data`; rates are per second, unknown values are null."""
        listed = list(members)
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
            members=listed,
        )
        return OpsData(
            now_ms=now_ns // 1_000_000,
            trigger_s=self._trigger_s,
            arriving_per_s=arriving_per_s,
            counted_per_s=self._counted(now_ns),
            lag=facts.lag,
            batch=BatchTimes(
                newest_s=facts.batch_s,
                p50_s=quantile(batches_s, 0.5),
                p95_s=p95_s,
                headroom=None if p95_s is None else round(p95_s / self._trigger_s, 4),
            ),
            watching=sum(member.announcement.clients for member in listed if member.live),
            malformed=sum(window.malformed for window in self._windows),
            dead_letters=len(self._letters),
            windows=[window_row(window) for window in self._windows],
            batches=[
                BatchRow(
                    batch=batch.batch_id,
                    trigger_ms=round(batch.timestamp.timestamp() * 1000),
                    batch_s=batch_s,
                    rows=batch.num_input_rows,
                )
                for batch, batch_s in zip(self._batches, batches_s, strict=True)
            ],
            samples=[
                SampleRow(sample.at_ns // 1_000_000, self._arriving(index), sample.lag)
                for index, sample in enumerate(self._samples)
            ],
            subscribers=[subscriber_row(member) for member in listed],
            alerts=[AlertRow(*alert) for alert in alerts(facts)],
        )

    def _arriving(self, index: int) -> float | None:
        """Return the records appended per second in the `RATE_SAMPLES` before a sample."""
        if index < 1:
            return None
        newest, before = self._samples[index], self._samples[max(0, index - RATE_SAMPLES)]
        return round((newest.appended - before.appended) * NS_PER_S / max(1, newest.at_ns - before.at_ns), 2)

    def _counted(self, now_ns: int) -> float:
        """Return the reactions per second in the windows of the last minute."""
        since_ns = now_ns - round(COUNTED_S * NS_PER_S)
        return round(sum(w.total for w in self._windows if w.emitted_ns > since_ns) / COUNTED_S, 2)


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the smallest value that at least the share `q` of all values do not exceed; None without values."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)] if values else None


def window_row(window: Window) -> WindowRow:
    """Return the row of a window; `published_s` is the time from its trigger until its counts were ready."""
    return WindowRow(
        id=window.event_id,
        trigger_ms=window.trigger_ns // 1_000_000,
        published_s=round((window.emitted_ns - window.trigger_ns) / NS_PER_S, 3),
        total=window.total,
        malformed=window.malformed,
    )


def subscriber_row(member: Member) -> MemberRow:
    """Return the row of a subscriber."""
    announcement = member.announcement
    return MemberRow(
        cluster=announcement.cluster,
        subscriber=announcement.subscriber,
        clients=announcement.clients,
        live=member.live,
        age_s=round(member.age_ns / NS_PER_S, 1),
        last_event_id=announcement.last_event_id,
    )
