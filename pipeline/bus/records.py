"""Decoding records one by one: an unreadable record is logged, counted and skipped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from pipeline import logs
from pipeline.bus.base import Bus, Record
from pipeline.errors import MessageError

log = logs.get(__name__)

T = TypeVar("T")

LOOK_BACK_STEP = 10_000
"""Records that are read at once on the way back: as many as a reader takes at once."""
LOOK_BACK_BYTES = 256 << 20
FURTHER = 8
"""How many times as far `tail_until` reads each time."""


def readable(
    records: Iterable[Record],
    decode: Callable[[bytes | None], T],
    what: str,
    skipped: Callable[[Record, str], object] = lambda record, reason: None,
    **fields: object,
) -> Iterator[tuple[Record, T]]:
    """Yield each record with its message, as `decode` returns it.

    A record for which `decode` raises MessageError is logged with `what` it should be and with `fields`, reported by
    `skipped(record, reason)`, and not yielded.
    """
    for record in records:
        try:
            message = decode(record.value)
        except MessageError as error:
            log.error(
                "skipped an unreadable record",
                expected=what,
                partition=record.partition,
                offset=record.offset,
                reason=str(error),
                **fields,
            )
            skipped(record, str(error))
            continue
        yield record, message


def keyed(
    records: Iterable[Record],
    decode: Callable[[bytes | None], T],
    what: str,
    skipped: Callable[[Record, str], object] = lambda record, reason: None,
) -> Iterator[tuple[str, T | None]]:
    """Yield key and message of a compacted topic's records; the message of a tombstone is None. See `readable`."""

    def decode_unless_tombstone(value: bytes | None) -> T | None:
        return None if value is None else decode(value)

    with_key = (record for record in records if record.key is not None)
    for record, message in readable(with_key, decode_unless_tombstone, what, skipped):
        yield (record.key or b"").decode(errors="replace"), message


def last_readable(
    bus: Bus,
    topic: str,
    count: int,
    decode: Callable[[bytes | None], T],
    skipped: Callable[[Record, str], object] = lambda record, reason: None,
) -> list[tuple[Record, T]]:
    """Return the last `count` records that `decode` can read, the oldest first, each with its message.

    The topic has one partition. Another program may have written more than `count` records behind the last readable
    one, so this reads further back until it has enough, or has read LOOK_BACK_BYTES, or the topic begins. Each record
    for which `decode` raises MessageError is reported by `skipped(record, reason)`; the log has one line about all.
    """
    first, end = bus.bounds(topic)[0]
    found: deque[tuple[Record, T]] = deque()
    step, seen_bytes, unreadable = count, 0, 0
    while first < end and len(found) < count and seen_bytes < LOOK_BACK_BYTES:
        step = min(step, LOOK_BACK_STEP)
        start = max(first, end - step)
        for record in reversed(bus.read(topic, {0: start}, {0: end})):
            seen_bytes += len(record.value or b"")
            if len(found) == count:
                break
            try:
                found.appendleft((record, decode(record.value)))
            except MessageError as error:
                unreadable += 1
                skipped(record, str(error))
        end, step = start, 2 * step
    if unreadable:
        log.error("skipped unreadable records at the end of a topic", topic=topic, count=unreadable, found=len(found))
    return list(found)


def tail_until(
    bus: Bus,
    topic: str,
    count: int,
    read: Callable[[Iterable[Record]], Sequence[T]],
    enough: Callable[[Sequence[T]], bool],
) -> Sequence[T]:
    """Return what `read` makes of the last `count` records of each partition, or of more until it is `enough`.

    Other programs may have written more than `count` records behind those that are asked for. If it is never enough,
    the whole topic was read.
    """
    while True:
        ends = bus.ends(topic)
        # Not a tail, which leaves out the oldest records if they are large.
        found = read(bus.records(topic, ends, {number: max(0, end - count) for number, end in ends.items()}))
        if enough(found) or count >= max(ends.values(), default=0):
            return found
        count *= FURTHER
