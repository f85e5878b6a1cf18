"""The ledger: one row per planned reaction, with its partition and offset in Kafka and the window that counted it.

Nothing is added to the aggregate to follow a reaction. (user, timestamp) identifies its record, the record has a
partition and an offset, and a window names the offsets it covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.units import NS_PER_US
from pipeline.errors import EmoStreamError

COLUMNS: dict[str, tuple[str, ...]] = {
    "plan": ("seq", "user_id", "emoji_type", "t_intended_ns", "phase"),
    "sent": ("seq", "t_sent_ns", "t_answered_ns", "status"),
    "topic": (
        *("partition", "offset", "user_id", "emoji_type", "timestamp"),
        *("accepted_ns", "flushed_ns", "appended_ns"),
    ),
    "windows": (
        *("epoch", "window", "trigger_ns", "emitted_ns", "total", "malformed"),
        *("offsets", "reactions", "carried"),
    ),
    "clients": ("client_id", "cluster", "subscriber", "joined_ns", "left_ns"),
    "deliveries": (
        *("client_id", "epoch", "window", "event_id", "received_ns"),
        *("main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns", "total", "shown_hash"),
    ),
    "progress": (
        *("batch_id", "trigger_start_ns", "trigger_execution_ms", "num_input_rows"),
        *("latest_offset_ms", "add_batch_ms", "wal_commit_ms", "commit_ms"),
    ),
    "usage": ("t_ns", "stage", "cpu_s", "rss_bytes"),
    "receivers_timer": ("t_ns", "late_ns"),
    "invalid": ("case", "expected", "t_intended_ns", "t_sent_ns", "t_answered_ns", "status"),
}
"""The frames of a run and the columns each must have."""

TEXTS = frozenset(
    (
        *("user_id", "emoji_type", "phase", "timestamp", "epoch", "offsets", "reactions", "carried"),
        *("client_id", "cluster", "subscriber", "event_id", "stage", "case"),
    )
)
"""The columns that hold text; all others hold numbers."""
NEVER_NULL = {
    "plan": ("seq", "t_intended_ns"),
    "sent": ("seq",),
    "topic": ("partition", "offset"),
    "windows": ("epoch", "window", "trigger_ns"),
}
"""The columns without which a row of the frame has no place in the ledger."""

WINDOW_KEY = ["epoch", "window"]
REACTION_COLUMNS = (
    *("seq", "user_id", "emoji_type", "t_intended_ns", "t_sent_ns", "t_answered_ns", "status", "phase"),
    *("partition", "offset", "accepted_ns", "flushed_ns", "appended_ns", "epoch", "window"),
)


# Of pandas.api.types.infer_dtype.
_NOT_NUMBERS = ("string", "bytes", "mixed", "mixed-integer", "boolean", "datetime64", "datetime", "date")


class LedgerError(EmoStreamError):
    """A frame of the run lacks a column, or holds a value from which the ledger cannot be joined."""


def require(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` as it is, or raise LedgerError.

    The error names the columns that a `name` frame lacks, or a column with text instead of numbers, or with nulls.
    """
    missing = [column for column in COLUMNS[name] if column not in frame.columns]
    if missing:
        raise LedgerError(
            f"The {name} frame lacks {', '.join(missing)} (it has "
            f"{', '.join(map(str, frame.columns)) or 'no columns'}): "
            "write it with all of " + ", ".join(COLUMNS[name]) + "."
        )
    for column in () if frame.empty else COLUMNS[name]:
        values = frame[column]
        if column not in TEXTS and not _holds_numbers(values):
            raise LedgerError(f"The {name} frame has {values.dropna().iloc[0]!r} in {column}: expected numbers.")
        if column in NEVER_NULL.get(name, ()) and values.isna().any():
            raise LedgerError(f"The {name} frame has nulls in {column}: expected a value in every row.")
    return frame


def _holds_numbers(values: pd.Series) -> bool:
    numeric = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    return numeric or pd.api.types.infer_dtype(values, skipna=True) not in _NOT_NUMBERS


def shown_hash(cells: Iterable[tuple[str, int, int]]) -> int:
    """Return a hash, as int64, of what a client was shown: (emoji_type, count, representatives), in this order."""
    text = "".join(f"{kind} {count} {representatives}\n" for kind, count, representatives in cells)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def unique_windows(windows: pd.DataFrame) -> pd.DataFrame:
    """Return the windows with each (epoch, window) once, its first record kept, in the order given.

    A micro-batch that Spark replays emits its window again; every stage downstream forwards the first only.
    """
    require("windows", windows)
    return windows.drop_duplicates(WINDOW_KEY, keep="first").reset_index(drop=True)


def offset_ranges(windows: pd.DataFrame) -> pd.DataFrame:
    """Return `epoch, window, partition, first, last` (both inclusive): a row per range that holds a record.

    The windows' `offsets` is JSON text such as `{"emoji-events-0": [120, 239]}`. Raises LedgerError naming a
    window whose offsets cannot be read.
    """
    rows: list[tuple[object, int, int, int, int]] = []
    for epoch, window, text in zip(windows["epoch"], windows["window"], windows["offsets"], strict=True):
        try:
            for key, (first, last) in json.loads(text).items():
                if last >= first:
                    rows.append((epoch, int(window), int(key.rsplit("-", 1)[1]), int(first), int(last)))
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise LedgerError(
                f'Window {epoch}:{window} has offsets {text!r}: expected JSON like {{"emoji-events-0": [first, last]}}.'
            ) from error
    return pd.DataFrame(rows, columns=["epoch", "window", "partition", "first", "last"]).astype(
        {"window": "int64", "partition": "int64", "first": "int64", "last": "int64"}
    )


def cells(windows: pd.DataFrame) -> pd.DataFrame:
    """Return `epoch, window, emoji_type, count, representatives`: one row per window and type."""
    rows: list[tuple[object, int, str, int, int]] = []
    for epoch, window, text in zip(windows["epoch"], windows["window"], windows["reactions"], strict=True):
        try:
            for cell in json.loads(text):
                rows.append((epoch, int(window), cell["emoji_type"], int(cell["count"]), int(cell["representatives"])))
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerError(
                f"Window {epoch}:{window} has reactions {text!r}: expected a JSON list of "
                '{"emoji_type", "count", "representatives"}.'
            ) from error
    frame = pd.DataFrame(rows, columns=["epoch", "window", "emoji_type", "count", "representatives"])
    return frame.astype({"window": "int64", "count": "int64", "representatives": "int64"})


def placed(topic: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Return the topic with `epoch`, `window` (the first window covering the record, or null) and `covers`.

    `covers` is the number of windows whose offsets include the record: 1 if all is right. The loop is over
    windows; each finds its records by binary search.
    """
    ordered = topic.sort_values(["partition", "offset"], ignore_index=True)
    partitions = ordered["partition"].to_numpy(dtype=np.int64)
    offsets = ordered["offset"].to_numpy(dtype=np.int64)
    known = unique_windows(windows)
    numbers = {key: row for row, key in enumerate(zip(known["epoch"], known["window"], strict=True))}
    owner = np.full(len(ordered), -1, dtype=np.int64)
    covers = np.zeros(len(ordered), dtype=np.int64)
    bounds = {
        int(p): (int(np.searchsorted(partitions, p, "left")), int(np.searchsorted(partitions, p, "right")))
        for p in np.unique(partitions)
    }
    ranges = offset_ranges(known)
    keys = zip(ranges["epoch"], ranges["window"], strict=True)
    edges = ranges[["partition", "first", "last"]].to_numpy(dtype=np.int64).tolist()
    for key, (partition, first, last) in zip(keys, edges, strict=True):
        start, stop = bounds.get(partition, (0, 0))
        inside = offsets[start:stop]
        low = start + int(np.searchsorted(inside, first, "left"))
        high = start + int(np.searchsorted(inside, last, "right"))
        covers[low:high] += 1
        free = owner[low:high] < 0
        owner[low:high][free] = numbers[key]
    found = owner >= 0
    epoch = np.full(len(ordered), None, dtype=object)
    epoch[found] = known["epoch"].to_numpy(dtype=object)[owner[found]]
    window = pd.array(np.zeros(len(ordered), dtype=np.int64), dtype="Int64")
    window[found] = known["window"].to_numpy(dtype=np.int64)[owner[found]]
    window[~found] = pd.NA
    return ordered.assign(epoch=epoch, window=window, covers=covers)


def identified(plan: pd.DataFrame, topic: pd.DataFrame) -> pd.DataFrame:
    """Return the topic's countable records with the `seq` (Int64) of the planned reaction, null if there is none.

    A record with a null emoji_type (a probe or malformed) counts nothing and is left out.
    """
    planned = pd.DataFrame(
        {
            "user_id": plan["user_id"],
            "us": plan["t_intended_ns"].to_numpy(dtype=np.int64) // NS_PER_US,
            "seq": plan["seq"].astype("Int64"),
        }
    )
    twice = planned.duplicated(["user_id", "us"])
    if twice.any():
        row = plan.loc[twice.to_numpy()].iloc[0]
        raise LedgerError(
            f"The plan has seq {row['seq']} in the same microsecond as another reaction of {row['user_id']}: "
            "make the plan with experiments.load.plan.plan_of, which keeps them apart."
        )
    records = topic[topic["emoji_type"].notna()]
    return records.assign(us=_microseconds(records["timestamp"])).merge(
        planned, on=["user_id", "us"], how="left", validate="many_to_one"
    )


def join(plan: pd.DataFrame, sent: pd.DataFrame, topic: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Return the ledger: REACTION_COLUMNS, one row per planned reaction in order of `seq`, Int64 null where
    absent.

    A reaction that is in the topic more than once gets the offset at which it was first counted, or first written if
    it was not counted; accuracy.conservation counts and names the copies.
    """
    for name, frame in (("plan", plan), ("sent", sent), ("topic", topic)):
        require(name, frame)
    records = identified(plan, placed(topic, windows))
    own = records[records["seq"].notna()]
    own = own.assign(uncounted=own["covers"] == 0).sort_values(["uncounted", "appended_ns", "offset"])
    first = own.drop_duplicates("seq", keep="first")
    stamps = ["partition", "offset", "accepted_ns", "flushed_ns", "appended_ns"]
    places = first[["seq", *stamps, "epoch", "window"]].astype(dict.fromkeys(stamps, "Int64"))
    answers = sent[list(COLUMNS["sent"])].astype("Int64")
    if answers["seq"].duplicated().any():
        raise LedgerError(
            f"The sent frame has seq {answers['seq'][answers['seq'].duplicated()].iloc[0]} twice: "
            "the sender must write one row per planned reaction."
        )
    ledger = plan.astype({"seq": "Int64"}).merge(answers, on="seq", how="left").merge(places, on="seq", how="left")
    return ledger.astype({"seq": "int64"}).sort_values("seq", ignore_index=True)[list(REACTION_COLUMNS)]


def accepted(reactions: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows of the ledger were answered 202."""
    return (reactions["status"] == 202).fillna(False).to_numpy(dtype=bool)


def _microseconds(timestamps: pd.Series[str]) -> NDArray[np.int64]:
    moments = pd.to_datetime(timestamps, utc=True, format="ISO8601", errors="coerce")
    return moments.to_numpy(dtype="datetime64[us]").astype(np.int64)
