"""What Kafka holds after a run, as frames of the ledger: every count is checked against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
import pandas as pd

from experiments.ledger import COLUMNS
from experiments.units import NS_PER_MS, NS_PER_S
from pipeline.bus.base import Record
from pipeline.bus.records import readable
from pipeline.messages import Event, decode_window, encode

_decode_event = msgspec.json.Decoder(Event).decode


def events(records: Iterable[Record]) -> pd.DataFrame:
    """Return the `topic` frame. A record that cannot be read has its row, with a null `emoji_type`."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        try:
            event = _decode_event(record.value or b"")
        except msgspec.DecodeError:
            rows.append((record.partition, record.offset, None, None, None, 0, 0, record.timestamp_ms * NS_PER_MS))
            continue
        rows.append(
            (
                *(
                    record.partition,
                    record.offset,
                    event.user_id,
                    event.emoji_type,
                    _with_microseconds(event.timestamp),
                ),
                *(event.accepted_ns, event.flushed_ns, record.timestamp_ms * NS_PER_MS),
            )
        )
    return pd.DataFrame(rows, columns=list(COLUMNS["topic"]))


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
