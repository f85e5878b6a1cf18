"""Reading records one by one: what says nothing that can be read is logged and passed over, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pipeline import logs
from pipeline.bus.base import Record
from pipeline.errors import MessageError

log = logs.get(__name__)

T = TypeVar("T")


def readable(records: Iterable[Record], decode: Callable[[bytes | None], T], what: str) -> Iterator[tuple[Record, T]]:
    """Yield each record with what it says; `what` names that in the log, `decode` raises MessageError."""
    for record in records:
        try:
            said = decode(record.value)
        except MessageError as error:
            log.error(f"skipped a record that is no {what}", offset=record.offset, reason=str(error))
            continue
        yield record, said


def keyed(records: Iterable[Record], decode: Callable[[bytes | None], T], what: str) -> Iterator[tuple[str, T | None]]:
    """Yield each key of a compacted topic's records with what is said of it; None is a tombstone."""

    def decode_word(value: bytes | None) -> T | None:
        return None if value is None else decode(value)

    with_key = (record for record in records if record.key is not None)
    for record, said in readable(with_key, decode_word, what):
        yield (record.key or b"").decode(errors="replace"), said
