"""What Kafka holds after a run, as frames of the ledger: every count is checked against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
import pandas as pd

from experiments.ledger import COLUMNS
from experiments.units import NS_PER_MS, NS_PER_S
from pipeline import emojis
from pipeline.bus.base import Record
from pipeline.bus.records import readable
from pipeline.errors import MessageError
from pipeline.messages import decode_event, decode_window, decoder, encode


class Counted(msgspec.Struct):
    """What Spark reads of a record; a foreign writer's may have no more."""

    emoji_type: str


_decode_counted = decoder(Counted)


def events(records: Iterable[Record]) -> pd.DataFrame:
    """Return the `topic` frame. A record that Spark counts as malformed has its row, with a null `emoji_type`."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        place, appended_ns = (record.partition, record.offset), record.timestamp_ms * NS_PER_MS
        try:
            event = decode_event(record.value)
        except MessageError:
            rows.append((*place, None, _counted(record.value), None, 0, 0, appended_ns))
            continue
        stamps = event.accepted_ns, event.flushed_ns, appended_ns
        rows.append(
            (*place, event.user_id, _if_counted(event.emoji_type), _with_microseconds(event.timestamp), *stamps)
        )
    return pd.DataFrame(rows, columns=list(COLUMNS["topic"]))


def _counted(value: bytes | None) -> str | None:
    """Return the type that a record counts as although it is no whole event, None if it counts as nothing."""
    try:
        return _if_counted(_decode_counted(value).emoji_type)
    except MessageError:
        return None


def _if_counted(kind: str) -> str | None:
    return kind if emojis.counts(kind) else None


def _with_microseconds(timestamp: str) -> str:
    """Return it with microseconds: JSON encoders drop a fraction that is zero."""
    return timestamp if "." in timestamp else timestamp.replace("Z", ".000000Z")


def windows(records: Iterable[Record], first: Mapping[str, int]) -> pd.DataFrame:
    """Return the `windows` frame without windows that hold records before `first` ("{topic}-{partition}" → offset).

    A record that cannot be read is logged and skipped, as every stage does; its reactions then count as lost.
    """
    rows = []
    for _, window in readable(records, decode_window, "window"):
        if any(span[0] < first.get(key, 0) for key, span in window.offsets.items()):
            continue
        rows.append(
            (
                *(window.epoch, window.window, window.trigger_ns, window.emitted_ns),
                *(window.total, window.malformed),
                *(encode(window.offsets).decode(), encode(window.reactions).decode()),
                encode(window.carried or {}).decode(),
            )
        )
    return pd.DataFrame(rows, columns=list(COLUMNS["windows"]))


def progress(records: Iterable[Record]) -> pd.DataFrame:
    """Return the `progress` frame from Spark's StreamingQueryProgress reports (times in ms, start in ns)."""
    rows = []
    for record in records:
        report = msgspec.json.decode(record.value or b"{}")
        durations = report["durationMs"]
        if "addBatch" not in durations:
            # An idle trigger, reported every ten seconds: no micro-batch took place.
            continue
        started = datetime.fromisoformat(report["timestamp"])
        rows.append(
            (
                *(report["batchId"], round(started.timestamp() * 1000) * (NS_PER_S // 1000)),
                *(durations["triggerExecution"], report["numInputRows"], durations["latestOffset"]),
                *(durations["addBatch"], durations["walCommit"], durations["commitOffsets"]),
            )
        )
    return pd.DataFrame(rows, columns=list(COLUMNS["progress"]))
