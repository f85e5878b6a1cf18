"""Whether a checkpoint fits the windows and the topic, and where to begin if it does not. No I/O.

Spark believes its checkpoint. One that was deleted would count a day again; an older copy gives the numbers of known
windows to other reactions, which every stage then drops as duplicates; a torn one, a topic that was made again, or
records that retention removed end the query at each start. So a checkpoint is compared with the last window that was
emitted. If the two contradict each other, a new epoch begins behind that window.

Offsets that were counted may belong to other reactions later: where the topic was made again, or where a crash of its
machine took the end of Kafka's log, which grew again since. A window says when its last records were appended: if the
record at that offset has another time, what was appended later than all that was counted is counted from there on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from pipeline.messages import HighWater, Window

Offsets = Mapping[int, int]
NOWHERE: Offsets = MappingProxyType({})
_PARTITION = re.compile(r"-[0-9]{1,9}\Z")
_NEVER_MS = 2**53


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says: its `epoch` (None: there is none), and of its batches the offsets behind the last record.

    `behind` has the newest batch and that of the last window, if they are there. `after` is
    the id of the window behind which the epoch began, "" for the first. `torn` says which file cannot be read.
    """

    epoch: str | None = None
    behind: Mapping[int, Offsets] = field(default_factory=dict)
    after: str = ""
    torn: str = ""


@dataclass(frozen=True)
class Start:
    """How the query starts: with its checkpoint if `reason` is empty, else in a new epoch, without the old checkpoint.

    `offsets`: where each partition of the topic is counted on; a query without a checkpoint has to begin there. `lost`:
    the offsets, both inclusive, that no window covers and Kafka no longer has.
    """

    reason: str
    offsets: Offsets
    lost: Mapping[int, tuple[int, int]]
    after: str = ""


class Last(NamedTuple):
    """The last record of a partition that was counted, and the time that Kafka gave it; `latest_ms` of all counted."""

    offset: int
    appended_ms: int
    latest_ms: int


def number_of(partition: str) -> int:
    """Return the number of a partition as a window names it, such as "emoji-events-0"."""
    return int(partition.rpartition("-")[2])


def spans_of(window: Window) -> dict[int, tuple[int, int]]:
    """Return of each partition the first and last offset that a window covers."""
    return {number_of(name): span for name, span in window.offsets.items()}


def stamps_of(window: Window) -> dict[int, int]:
    """Return of each partition when the last of its records that `window` covers was appended, ms."""
    return {number_of(name): at_ms for name, at_ms in (window.appended_ms or {}).items()}


def is_plausible(window: Window) -> bool:
    """Return whether the job may have emitted `window`: it has the times of the records that it covers."""
    stamps = window.appended_ms or {}
    names = stamps.keys() == window.offsets.keys() and all(map(_PARTITION.search, stamps))
    return bool(stamps) and names and max(stamps.values()) < _NEVER_MS


def of_the_job(windows: Iterable[Window]) -> list[Window]:
    """Return those of `windows`, in the order of their emission, that the job emitted, each once.

    Another program's have no times of the records that they cover, or none that can be. Within an epoch offsets only
    go on. A new epoch begins behind all that was counted, or with records that were appended later: those of a topic
    that was made again, or that lost its end.
    """
    marks = HighWater()
    ends: dict[str, dict[int, int]] = {}
    counted: dict[int, tuple[int, int]] = {}
    found = []
    for window in filter(is_plausible, windows):
        spans, own = spans_of(window), ends.get(window.epoch)
        stamps = stamps_of(window)
        known = {number: counted.get(number, (-1, -1)) for number in spans}
        if own is None:
            goes_on = all(spans[each][0] > end or stamps[each] > at_ms for each, (end, at_ms) in known.items())
        else:
            goes_on = all(first > own.get(each, -1) for each, (first, _) in spans.items())
        if goes_on and marks.is_new(window) and marks.follows(window):
            marks.raise_to(window)
            lasts = {number: last for number, (_, last) in spans.items()}
            ends[window.epoch] = {**(own or {}), **lasts}
            counted |= {number: (last, max(stamps[number], known[number][1])) for number, last in lasts.items()}
            found.append(window)
    return found


def last_counted(windows: Iterable[Window]) -> dict[int, Last]:
    """Return of each partition the last record that the job's `windows` count."""
    found: dict[int, Last] = {}
    for window in windows:
        for name, at_ms in (window.appended_ms or {}).items():
            number = number_of(name)
            before = found.get(number)
            # A clock may have been set back.
            found[number] = Last(window.offsets[name][1], at_ms, max(at_ms, before.latest_ms if before else 0))
    return found


def behind(windows: Iterable[Window]) -> dict[int, int]:
    """Return of each partition the offset behind the last record that the job's `windows` cover.

    One that begins before that has other records at these offsets, and only it is right about them.
    """
    found: dict[int, int] = {}
    for window in windows:
        found |= {number: last + 1 for number, (_, last) in spans_of(window).items()}
    return found


def contradiction(checkpoint: Checkpoint, last: Window | None) -> str:
    """Return why `checkpoint` does not belong to the `last` window that was emitted; empty if it may."""
    if checkpoint.torn:
        return f"the checkpoint's {checkpoint.torn} cannot be read"
    if checkpoint.epoch is None or last is None:
        return ""
    if last.epoch != checkpoint.epoch:
        return "" if checkpoint.after == last.event_id else f"the last window, {last.event_id}, is of another epoch"
    newest = max(checkpoint.behind, default=-1)
    if newest < last.window:
        return f"the checkpoint ends with batch {newest}, before the last window, {last.event_id}"
    covered = checkpoint.behind.get(last.window)
    if covered is None:
        return f"the checkpoint does not know the last window, {last.event_id}"
    for name, (_, end) in last.offsets.items():
        if end >= covered.get(number_of(name), 0):
            return f"the checkpoint's batch {last.window} has other offsets than the last window, {last.event_id}"
    return ""


def start(
    checkpoint: Checkpoint,
    windows: Iterable[Window],
    firsts: Offsets,
    ends: Offsets,
    others: Offsets = NOWHERE,
) -> Start:
    """Return how to start, given the job's `windows` so far, and of each partition of the topic its first offset and
    the one behind its last record.

    `others` has, of each partition where another record is at the last offset that was counted, the offset of the first
    record that was appended since.
    """
    known = list(windows)
    last = known[-1] if known else None
    reason = contradiction(checkpoint, last)
    counted = _counted(checkpoint, known, fits=not reason)
    limits = {number: min(end, others.get(number, end)) for number, end in ends.items()}
    newest = checkpoint.behind[max(checkpoint.behind)] if checkpoint.behind else {}
    replaced = [number for number in sorted(limits) if counted.get(number, 0) > limits[number]]
    ahead = [number for number in sorted(ends) if newest.get(number, 0) > ends[number]]
    if replaced:
        reason = (
            f"partition {replaced[0]} has other records than those that were counted: the topic was made again, or "
            "Kafka lost its end"
        )
    elif ahead:
        reason = f"partition {ahead[0]} ends before the checkpoint's newest batch: Kafka lost its end"
    if replaced and not known:
        # No window says when it was counted.
        counted = {}
    counted = {number: min(offset, limits.get(number, offset)) for number, offset in counted.items()}
    # Of a partition that no window names it is not known what was counted.
    lost = {number: (due, firsts[number] - 1) for number, due in counted.items() if due < firsts.get(number, 0)}
    offsets = {number: max(counted.get(number, 0), first) for number, first in firsts.items()}
    if not reason and checkpoint.behind:
        if not lost:
            return Start("", offsets, {})
        reason = "Kafka has removed records that were not counted yet"
    if not reason and checkpoint.epoch is None and known:
        reason = "there is no checkpoint"
    return Start(reason, offsets, lost, "" if last is None or replaced else last.event_id)


def _counted(checkpoint: Checkpoint, known: list[Window], *, fits: bool) -> dict[int, int]:
    """Return of each partition the offset behind the last record that is known to be counted."""
    counted = behind(known)
    if known and checkpoint.epoch not in {window.epoch for window in known}:
        # None of its batches has a window.
        return counted
    # A window names only the partitions that had records. Its batch in the checkpoint has all, and so has the newest
    # batch if it is older: windows behind it were emitted.
    newest = max(checkpoint.behind, default=-1)
    own = bool(known) and known[-1].epoch == checkpoint.epoch
    offsets = checkpoint.behind.get(min(newest, known[-1].window) if own else newest, {})
    return {**counted, **offsets} if own and fits else {**offsets, **counted}
