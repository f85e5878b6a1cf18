"""Repeats: reactions whose id was counted already, within ten minutes. No I/O.

A client that got no answer sends its reactions again. Which of them are repeats is decided here, where the count is
made, so that it holds across ingest's workers, restarts and replays. A window remembers the ids that it counted for ten
minutes of `Clock`; of two equal ids in one window the first one counts, by partition and offset. All of this follows
from Kafka's content, so that a restart can rebuild it and anyone can count again.

Ids are compared by 64 bits (Spark's xxhash64). With 2.4 million remembered, one new id in 8 trillion is taken for
another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, structs

from pipeline import emojis
from pipeline.messages import Window
from spark.resume import number_of

if TYPE_CHECKING:
    import pyarrow as pa

REMEMBERED_MS = 600_000
PAUSE_MS = 60_000
Integers = npt.NDArray[np.int64]


class Clock(NamedTuple):
    """The clock by which ids are forgotten. It goes on with the times at which Kafka appended what is counted.

    `now_ms` is the time since it began, `read_to_ms` the time of the append to which the windows have come. From one
    window to the next it goes on by at most PAUSE_MS, and never back. So if Spark or Kafka was away, the machine was
    suspended, or its clock was set, the ids of the time before are still known: the copies of what was sent again
    meanwhile come only now, from Kafka or from ingest's buffers.
    """

    now_ms: int = 0
    read_to_ms: int | None = None

    def after(self, appended_ms: Collection[int]) -> Clock:
        """Return the clock after a window; `appended_ms` has of each of its partitions the time of the last record.

        No later window has a record that was appended before the earliest of these: Spark reads of each partition that
        has records left.
        """
        read_to_ms = min(appended_ms)
        gone_ms = 0 if self.read_to_ms is None else read_to_ms - self.read_to_ms
        return Clock(self.now_ms + min(max(gone_ms, 0), PAUSE_MS), read_to_ms)

    def until_ms(self, appended_ms: Collection[int]) -> int:
        """Return until when the ids of the window are remembered after which the clock shows this time."""
        return self.now_ms + max(appended_ms) - min(appended_ms) + REMEMBERED_MS


def times(window: Window) -> Collection[int]:
    """Return of each partition of one of the job's windows when its last record was appended, epoch ms."""
    return (window.appended_ms or {}).values()


def first_remembered(windows: Iterable[Window]) -> int:
    """Return the place of the first of the job's `windows` whose ids the last one had to know; 0 without windows."""
    clock = before = Clock()
    until_ms = []
    for window in windows:
        before, clock = clock, clock.after(times(window))
        until_ms.append(clock.until_ms(times(window)))
    return next((place for place, each in enumerate(until_ms) if each >= before.now_ms), 0)


def to_remember(windows: Sequence[Window], counted: Mapping[int, int]) -> list[Window]:
    """Return those of the job's `windows` that `Remembered.of` needs, each with the offsets at which it counted ids.

    `counted` has of each partition the offset behind the last record that was counted. Records at offsets that a later
    window covers are that one's: the topic was made again, or Kafka lost its end.
    """
    found = []
    limits = dict(counted)
    for window in reversed(windows[first_remembered(windows) :]):
        spans = {}
        for name, (first, last) in window.offsets.items():
            limit = limits.get(number_of(name), 0)
            if first < limit:
                spans[name] = (first, min(last, limit - 1))
                limits[number_of(name)] = first
        found.append(structs.replace(window, offsets={} if window.repeats is UNSET else spans))
    return found[::-1]


class Identified(NamedTuple):
    """Records with an id that count, ordered by partition and offset."""

    partition: Integers
    offset: Integers
    id: Integers
    emoji_type: npt.NDArray[np.object_]

    @classmethod
    def of(cls, table: pa.Table) -> Identified:
        """Return those of `spark.aggregation.identified`; a record with another text than an emoji never counts."""
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in cls._fields}
        known = {kind for kind in set(columns["emoji_type"]) if kind is not None and emojis.counts(kind)}
        counts = np.array([kind in known for kind in columns["emoji_type"]], dtype=bool)
        order = np.lexsort((columns["offset"], columns["partition"]))
        return cls(*(columns[name][order[counts[order]]] for name in cls._fields))

    @classmethod
    def none(cls) -> Identified:
        """Return no records."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, empty, np.empty(0, object))

    def within(self, window: Window) -> Identified:
        """Return the records that `window` covers."""
        places = []
        for name, (first, last) in window.offsets.items():
            start, end = np.searchsorted(self.partition, (number_of(name), number_of(name) + 1))
            low, high = np.searchsorted(self.offset[start:end], (first, last + 1))
            places.append(np.arange(start + low, start + high))
        chosen = np.concatenate(places) if places else np.empty(0, np.int64)
        return Identified(*(column[chosen] for column in self))


class Remembered:
    """The ids that were counted within the last ten minutes."""

    def __init__(self) -> None:
        # In ascending order of the ids: with 2.4 million of them, a window of 24,000 takes 0.03 s and all are 40 MB.
        self._ids: Integers = np.empty(0, np.int64)
        self._until_ms: Integers = np.empty(0, np.int64)
        self._clock = Clock()
        # The last window, the clock before it, and the ids that it counted.
        self._last: tuple[tuple[str, int], Clock, Integers] | None = None

    @classmethod
    def of(cls, windows: Iterable[Window], records: Identified) -> Remembered:
        """Return what is remembered after `windows`, in the order of their emission, that covered `records`."""
        remembered = cls()
        for window in windows:
            remembered.repeats(records.within(window), window.epoch, window.window, times(window))
        return remembered

    def repeats(
        self, records: Identified, epoch: str, number: int, appended_ms: Collection[int]
    ) -> Mapping[tuple[str, int], int]:
        """Return how many of a window's `records` are repeats, by type and partition, and remember the others.

        `appended_ms` has of each of the window's partitions the time of its last record. A window without ids has to be
        given as well, for the clock. The last window may be counted again: it does not find its own ids.
        """
        if self._last is not None and self._last[0] == (epoch, number):
            _, self._clock, own = self._last
            kept = ~np.isin(self._ids, own)
        else:
            kept = self._until_ms >= self._clock.now_ms
        if not kept.all():
            self._ids, self._until_ms = self._ids[kept], self._until_ms[kept]
        places = np.searchsorted(self._ids, records.id)
        known = np.zeros(len(records.id), dtype=bool)
        inside = places < len(self._ids)
        known[inside] = self._ids[places[inside]] == records.id[inside]
        first = np.zeros(len(records.id), dtype=bool)
        first[np.unique(records.id, return_index=True)[1]] = True
        repeated = known | ~first
        new = np.sort(records.id[~repeated])
        self._last = (epoch, number), self._clock, new
        self._clock = self._clock.after(appended_ms)
        if len(new):
            places = np.searchsorted(self._ids, new)
            self._ids = np.insert(self._ids, places, new)
            self._until_ms = np.insert(self._until_ms, places, self._clock.until_ms(appended_ms))
        return Counter(zip(records.emoji_type[repeated], records.partition[repeated].tolist(), strict=True))
