"""What Kafka holds after a run, as frames of the ledger: every count is checked against it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pandas as pd

from experiments.ledger import COLUMNS
from experiments.units import NS_PER_MS
from pipeline import emojis
from pipeline.bus.base import Record
from pipeline.bus.records import readable
from pipeline.errors import MessageError
from pipeline.messages import decode_event, decode_window, decoder, encode, first_copies
from pipeline.streaming_progress import decode_progress
from spark.first_object import first_object
from spark.repeats import PAUSE_MS, REMEMBERED_MS
from spark.resume import number_of

Place = tuple[int, int]
"""A record's partition and offset."""


class Counted(msgspec.Struct):
    """What Spark reads of a record; a foreign writer's may have no more."""

    emoji_type: str
    reaction_id: Any = None


_decode_counted = decoder(Counted)
_OF_A_BATCH = {"triggerExecution", "latestOffset", "addBatch", "walCommit", "commitOffsets"}


def counted(value: bytes | None) -> tuple[str | None, str | None]:
    """Return the type that a record counts as, None if it counts as nothing, and its id as Spark reads it, if any."""
    try:
        read = _decode_counted(value)
        given, reaction_id = read.emoji_type, read.reaction_id
    except MessageError:
        fields = first_object(value)
        given, reaction_id = str(fields.get("emoji_type")), fields.get("reaction_id")
    if reaction_id is not None and not isinstance(reaction_id, str):
        # Spark reads anything but text as its JSON.
        reaction_id = json.dumps(reaction_id, ensure_ascii=False, separators=(",", ":"))
    return given if emojis.counts(given) else None, reaction_id


def repeats(records: Iterable[Record], aggregates: Iterable[Record]) -> frozenset[Place]:
    """Return the places of the records that do not count, because a window within ten minutes counted their id.

    It states what `spark.repeats` does a second time, by the text of the ids. `aggregates` have to be all that were
    emitted in that time: the windows without ids say how time went by.
    """
    windows = list(first_copies(window for _, window in readable(aggregates, decode_window, "window")))
    if all(window.repeats is msgspec.UNSET for window in windows):
        return frozenset()
    ids = {}
    for record in records:
        kind, reaction_id = counted(record.value)
        if kind is not None and reaction_id is not None:
            ids[record.partition, record.offset] = reaction_id
    now_ms, read_to_ms = 0, None
    until_ms: dict[str, int] = {}
    found = set()
    for window in windows:
        spans = sorted((number_of(name), first, last) for name, (first, last) in window.offsets.items())
        places = ((number, offset) for number, first, last in spans for offset in range(first, last + 1))
        new = set()
        for place in () if window.repeats is msgspec.UNSET else places:
            if place not in ids:
                continue
            if ids[place] in new or until_ms.get(ids[place], -1) >= now_ms:
                found.add(place)
            else:
                new.add(ids[place])
        stamps = sorted((window.appended_ms or {}).values())
        if stamps:
            passed_ms = 0 if read_to_ms is None else stamps[0] - read_to_ms
            # A longer pause is not time in which copies came, and a clock that was set back says nothing.
            now_ms, read_to_ms = now_ms + max(0, min(passed_ms, PAUSE_MS)), stamps[0]
            until_ms |= dict.fromkeys(new, now_ms + stamps[-1] - stamps[0] + REMEMBERED_MS)
    return frozenset(found)


def events(records: Iterable[Record], repeated: frozenset[Place] = frozenset()) -> pd.DataFrame:
    """Return the `topic` frame. A record that Spark does not count has its row, with a null `emoji_type`: one that is
    malformed, and one that is `repeated`.
    """
    rows: list[tuple[object, ...]] = []
    for record in records:
        place, appended_ns = (record.partition, record.offset), record.timestamp_ms * NS_PER_MS
        try:
            event = decode_event(record.value)
        except MessageError:
            kind = None if place in repeated else counted(record.value)[0]
            rows.append((*place, None, kind, None, 0, 0, appended_ns))
            continue
        stamps = event.accepted_ns, event.flushed_ns, appended_ns
        kind = event.emoji_type if place not in repeated and emojis.counts(event.emoji_type) else None
        rows.append((*place, event.user_id, kind, _with_microseconds(event.timestamp), *stamps))
    return pd.DataFrame(rows, columns=list(COLUMNS["topic"]))


def _with_microseconds(timestamp: str) -> str:
    """Return it with microseconds: JSON encoders drop a fraction that is zero."""
    return timestamp if "." in timestamp else timestamp.replace("Z", ".000000Z")


def windows(records: Iterable[Record], first: Mapping[str, int]) -> pd.DataFrame:
    """Return the `windows` frame without windows that hold records before `first` ("{topic}-{partition}" → offset).

    `malformed` has the repeats as well: both are records that do not count. A record that cannot be read is logged and
    skipped, as every stage does; its reactions then count as lost.
    """
    rows = []
    for _, window in readable(records, decode_window, "window"):
        if any(span[0] < first.get(key, 0) for key, span in window.offsets.items()):
            continue
        rows.append(
            (
                *(window.epoch, window.window, window.trigger_ns, window.emitted_ns),
                *(window.total, window.malformed + (window.repeats or 0)),
                *(encode(window.offsets).decode(), encode(window.reactions).decode()),
                encode(window.carried or {}).decode(),
            )
        )
    return pd.DataFrame(rows, columns=list(COLUMNS["windows"]))


def progress(records: Iterable[Record]) -> pd.DataFrame:
    """Return the `progress` frame from Spark's StreamingQueryProgress reports (times in ms, start in ns)."""
    rows = []
    # A record that is no report stands for none: if one is missing, the verdict says so.
    for _, report in readable(records, decode_progress, "report"):
        took = report.duration_ms
        if not took.keys() >= _OF_A_BATCH:
            # An idle trigger, reported every ten seconds: no micro-batch took place.
            continue
        rows.append(
            (
                *(report.batch_id, report.fired_ns),
                *(took["triggerExecution"], report.num_input_rows, took["latestOffset"]),
                *(took["addBatch"], took["walCommit"], took["commitOffsets"]),
            )
        )
    return pd.DataFrame(rows, columns=list(COLUMNS["progress"]))
