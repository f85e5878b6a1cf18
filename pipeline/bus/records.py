"""Decoding records one by one: an unreadable record is logged, counted and skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pipeline import logs
from pipeline.bus.base import Record
from pipeline.errors import MessageError

log = logs.get(__name__)

T = TypeVar("T")


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
