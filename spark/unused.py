"""The records of a window that are no reactions: found again in the topic, for dead letters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import msgspec

from pipeline import emojis
from pipeline.bus.base import Bus, Record
from pipeline.errors import MessageError
from pipeline.messages import decoder
from spark.first_object import first_object

MOST = 100
"""Records of a window that get a letter: of a flood the first ones tell what it is."""
WAIT_S = 5.0


class Typed(msgspec.Struct, frozen=True):
    """What makes a record a reaction."""

    emoji_type: str


_decode = decoder(Typed)


def unused(bus: Bus, topic: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Record, str]]:
    """Yield the records that the rows of the null type stand for (see `spark.window.countable`), each with the reason.

    At most MOST, of which Kafka sends the last within WAIT_S. A null record is a probe, and no fault.
    """
    spans: dict[int, tuple[int, int]] = {}
    for row in rows:
        if row["emoji_type"] is None:
            first, last = spans.get(row["partition"], (row["first"], row["last"]))
            spans[row["partition"]] = min(first, row["first"]), max(last, row["last"])
    if not spans:
        return
    found = 0
    deadline_s = time.monotonic() + WAIT_S
    ends = {partition: last + 1 for partition, (_, last) in spans.items()}
    start = {**bus.ends(topic), **{partition: first for partition, (first, _) in spans.items()}}
    with closing(bus.reader(topic, start)) as reader:
        while ends and found < MOST and time.monotonic() < deadline_s:
            for record in reader.poll(0.1):
                end = ends.get(record.partition, 0)
                if record.offset + 1 >= end:
                    ends.pop(record.partition, None)
                if record.offset < end and record.value is not None and (reason := _why_not(record.value)):
                    found += 1
                    yield record, reason
                    if found == MOST:
                        return


def _why_not(value: bytes) -> str:
    """Return why a record is no reaction; "" if it is one."""
    try:
        kind = _decode(value).emoji_type
    except MessageError as error:
        if emojis.counts(str(first_object(value).get("emoji_type"))):
            return ""
        return f"not a reaction: {str(error).partition(': ')[2]}"
    return "" if emojis.counts(kind) else f"not a reaction: emoji_type is {kind[:40]!a}, which is no emoji"
