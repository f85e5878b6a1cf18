"""The checker: what senders were told, joined with what Kafka holds and what clients received. No I/O.

It names every anomaly:

| kind | a reaction | a window at a client |
| --- | --- | --- |
| lost | answered 202, and not counted | |
| duplicate | counted more than once | received again |
| phantom | counted, and never sent, or refused permanently | never emitted |
| altered | counted as another emoji | with other counts |
| reordered | | before one that came earlier |
| unseen | | between two that the client received, or after its last |

A reaction whose answer never came, or said that it may be counted, may be counted once or not at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, NamedTuple

import msgspec

from pipeline.messages import TypeCount, Window, first_copies
from spark.resume import number_of

Told = Literal["accepted", "refused", "unknown"]
"""`unknown`: no answer came, or one that says that the reaction may be counted."""
Kind = Literal["lost", "duplicate", "phantom", "altered", "reordered", "unseen"]
RESET = None
"""Among the windows that a client received: the server said that it missed some."""
LATER = 1_000
"""What is added to the number of a partition for records that are at the offsets of others that Kafka lost."""


class Sent(NamedTuple):
    """A reaction, by its id, and the last answer to it."""

    reaction_id: str
    emoji_type: str
    told: Told


class Stored(NamedTuple):
    """A record of `emoji-events`; `emoji_type` is None if it cannot count."""

    partition: int
    offset: int
    reaction_id: str | None
    emoji_type: str | None


class Regrown(NamedTuple):
    """A topic that lost its records, in each partition from an offset on (`firsts`), and has others there since.

    `epochs` are those of all windows until then. It keeps the two kinds of records apart: of those that came since, and
    of the windows that count them, the partition is LATER higher.
    """

    epochs: frozenset[str]
    firsts: Mapping[int, int]

    def record(self, record: Stored) -> Stored:
        """Return a record that was read since."""
        first = self.firsts.get(record.partition)
        return record if first is None or record.offset < first else record._replace(partition=record.partition + LATER)

    def window(self, window: Window) -> Window:
        """Return any window: one that covers both kinds of records gets two spans."""
        if window.epoch in self.epochs:
            return window
        offsets = {}
        for name, (first, last) in window.offsets.items():
            number = number_of(name)
            begins = self.firsts.get(number, last + 1)
            if first < begins:
                offsets[name] = (first, min(last, begins - 1))
            if last >= begins:
                offsets[f"{name.removesuffix(str(number))}{number + LATER}"] = (max(first, begins), last)
        return msgspec.structs.replace(window, offsets=offsets)


class Anomaly(NamedTuple):
    """One thing that is wrong: its kind, the reaction's id or the window's, and the details."""

    kind: Kind
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}: {self.detail}"


@dataclass(frozen=True)
class History:
    """One experiment: `emitted` has every copy of a window on `emoji-aggregates`, in order; `received` by client."""

    sent: Sequence[Sent]
    stored: Sequence[Stored]
    emitted: Sequence[Window]
    received: Mapping[str, Sequence[Window | None]] = field(default_factory=dict)

    def forwarded(self) -> list[Window]:
        """Return the first copy of each window: those that stages behind Spark forward."""
        return list(first_copies(self.emitted))


def anomalies(history: History) -> list[Anomaly]:
    """Return everything that is wrong, of reactions first, then of windows."""
    forwarded = history.forwarded()
    return [
        *_of_reactions(history, forwarded),
        *(each for client, windows in history.received.items() for each in _at_client(client, windows, forwarded)),
    ]


def uncovered(stored: Iterable[Stored], windows: Iterable[Window]) -> list[Stored]:
    """Return the records that no window covers."""
    cover = _Cover(windows)
    return [each for each in stored if not cover.of(each)]


class _Span(NamedTuple):
    first: int
    last: int
    window: int


class _Cover:
    """Which windows, by their place, cover a record."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self._spans: dict[int, list[_Span]] = {}
        for index, window in enumerate(windows):
            for name, (first, last) in window.offsets.items():
                self._spans.setdefault(number_of(name), []).append(_Span(first, last, index))
        for spans in self._spans.values():
            spans.sort()
        # The greatest end up to each span: how far back one may still reach over an offset.
        self._reach = {
            number: list(accumulate((span.last for span in spans), max)) for number, spans in self._spans.items()
        }

    def of(self, record: Stored) -> list[int]:
        """Return the places of the windows that cover `record`, in ascending order."""
        spans, reach = self._spans.get(record.partition, []), self._reach.get(record.partition, [])
        found = []
        place = bisect_right(spans, record.offset, key=lambda span: span.first) - 1
        while place >= 0 and reach[place] >= record.offset:
            if spans[place].last >= record.offset:
                found.append(spans[place].window)
            place -= 1
        return sorted(found)


def _of_reactions(history: History, forwarded: Sequence[Window]) -> Iterator[Anomaly]:
    cover = _Cover(forwarded)
    by_place = sorted(history.stored, key=lambda each: (each.partition, each.offset))
    covered = {each: cover.of(each) for each in by_place}
    for record, windows in covered.items():
        if len(windows) > 1 and record.emoji_type is not None:
            named = ", ".join(forwarded[index].event_id for index in windows)
            yield Anomaly("duplicate", _name(record), f"its record is in the windows {named}")
    expected = [Counter[str]() for _ in forwarded]
    counted: dict[str, Stored] = {}
    for record in sorted((each for each in by_place if covered[each]), key=lambda each: covered[each][0]):
        if record.emoji_type is None or record.reaction_id in counted:
            continue
        if record.reaction_id is not None:
            counted[record.reaction_id] = record
        expected[covered[record][0]][record.emoji_type] += 1
    for window, counts in zip(forwarded, expected, strict=True):
        yield from _recounted(window, counts)
    sent = {each.reaction_id: each for each in history.sent}
    for record in by_place:
        if record.emoji_type is None:
            continue
        known = sent.get(record.reaction_id or "")
        if known is None:
            yield Anomaly("phantom", _name(record), "nobody sent it")
        elif known.told == "refused":
            yield Anomaly("phantom", _name(record), "its sender was told that nothing was accepted")
    in_kafka = {each.reaction_id for each in by_place}
    for each in history.sent:
        one = counted.get(each.reaction_id)
        if one is None and each.told == "accepted":
            where = "in Kafka, and in no window" if each.reaction_id in in_kafka else "not in Kafka"
            yield Anomaly("lost", each.reaction_id, where)
        if one is not None and one.emoji_type != each.emoji_type:
            yield Anomaly("altered", each.reaction_id, f"{each.emoji_type} became {one.emoji_type}")


def _recounted(window: Window, counts: Mapping[str, int]) -> Iterator[Anomaly]:
    said = {cell.emoji_type: cell.count for cell in window.reactions}
    for kind in sorted(said.keys() | counts.keys()):
        more = said.get(kind, 0) - counts.get(kind, 0)
        if more:
            detail = f"{kind} counts {said.get(kind, 0)}, and {counts.get(kind, 0)} of its records do"
            yield Anomaly("phantom" if more > 0 else "lost", window.event_id, detail)
    if window.total != sum(said.values()):
        yield Anomaly("altered", window.event_id, f"total is {window.total}, and its counts are {sum(said.values())}")


def _name(record: Stored) -> str:
    return record.reaction_id or f"the record at {record.partition}:{record.offset}"


def _at_client(client: str, windows: Sequence[Window | None], forwarded: Sequence[Window]) -> Iterator[Anomaly]:
    places = {window.event_id: index for index, window in enumerate(forwarded)}
    seen: set[int] = set()
    due = newest = None
    for window in windows:
        if window is RESET:
            due = None
            continue
        place = places.get(window.event_id)
        name = f"{window.event_id} at {client}"
        if place is None:
            yield Anomaly("phantom", name, "it was never emitted")
            continue
        if _content(window) != _content(forwarded[place]):
            yield Anomaly("altered", name, "its counts or offsets are not those that were emitted")
        if place in seen:
            yield Anomaly("duplicate", name, "received again")
        elif newest is not None and place < newest:
            yield Anomaly("reordered", name, f"received after {forwarded[newest].event_id}")
        elif due is not None:
            for missed in range(due, place):
                yield Anomaly("unseen", f"{forwarded[missed].event_id} at {client}", "a later one was received")
        seen.add(place)
        newest = place if newest is None else max(newest, place)
        due = newest + 1
    for missed in range(len(forwarded) if newest is None else newest + 1, len(forwarded)):
        yield Anomaly("unseen", f"{forwarded[missed].event_id} at {client}", "the client's last one was earlier")
    if newest is None and forwarded:
        yield Anomaly("unseen", f"{forwarded[-1].event_id} at {client}", "the client received nothing")


def _content(window: Window) -> tuple[object, ...]:
    """What no stage may change; a cluster's view may leave types out, not add or alter one."""
    cells: Sequence[TypeCount] = window.reactions
    return (
        *(window.trigger_ns, window.emitted_ns, window.offsets, window.total, window.malformed),
        *(window.repeats or 0, window.lost or msgspec.UNSET, tuple(sorted(cells, key=lambda cell: cell.emoji_type))),
    )
