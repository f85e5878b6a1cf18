"""The ledger: one row per planned reaction, with its partition and offset in Kafka and the window that counted it.

Nothing is added to the aggregate to follow a reaction. (user, timestamp) identifies its record, the record has a
partition and an offset, and a window names the offsets it covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.arrays import IntegerArray

from experiments.units import NS_PER_US
from pipeline.errors import EmoStreamError

Ints = NDArray[np.int64]
Codes = NDArray[np.signedinteger[Any]]
Bools = NDArray[np.bool_]

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

TIMER_EVERY_S = 0.02
"""How long the receivers' timer sleeps between two rows of `receivers_timer`."""
WINDOW_KEY = ["epoch", "window"]
REACTION_COLUMNS = (
    *("seq", "user_id", "emoji_type", "t_intended_ns", "t_sent_ns", "t_answered_ns", "status", "phase"),
    *("partition", "offset", "accepted_ns", "flushed_ns", "appended_ns", "epoch", "window"),
)


# Of rows at once, where an intermediate result of all would double the memory.
PIECE = 1 << 20

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


def pieces(count: int) -> Iterator[slice]:
    """Yield the slices of PIECE rows that make up `count` rows."""
    for start in range(0, count, PIECE):
        yield slice(start, min(start + PIECE, count))


def coded(values: pd.Series) -> tuple[Codes, pd.Index]:
    """Return the number of each value among the distinct ones, -1 for null, and the distinct ones."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return cast(Codes, values.cat.codes.to_numpy()), values.cat.categories
    codes, distinct = pd.factorize(values)
    return codes.astype(np.int64, copy=False), pd.Index(distinct)


def integers(values: pd.Series) -> tuple[Ints, Bools]:
    """Return integers, 0 where null, and where they are null. Integers of 64 bits without nulls are not copied."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind == "i":
        return cast(Ints, values.to_numpy()), np.zeros(len(values), dtype=bool)
    whole = values if pd.api.types.is_integer_dtype(values.dtype) else values.astype("Int64")
    null = whole.isna().to_numpy(dtype=np.bool_)
    return cast(Ints, whole.to_numpy(dtype=np.int64, na_value=0)), cast(Bools, null)


@dataclass(frozen=True)
class Records:
    """The topic's records in order of partition and offset, and the windows that cover them.

    `topic`: the frame, in that order, less the timestamps. `planned`: of each record the row of the planned reaction
    (`identified`). `windows`: unique_windows. `owner`: of each record the row in `windows` of the
    first window that covers it, -1 if none does. `covers`: the number of windows that do: 1 if all is right. `spans`:
    each range of offsets of a window, as its row in `windows` and the slice of its records.
    """

    topic: pd.DataFrame
    planned: NDArray[np.int32]
    windows: pd.DataFrame
    owner: Codes
    covers: Codes
    spans: list[tuple[int, slice]]

    def places(self, of: Codes) -> tuple[pd.Categorical, IntegerArray]:
        """Return the epoch and the number of the window of each record in `of` (rows of `topic`, -1: none)."""
        rows = (
            np.where(of >= 0, self.owner[of], self.owner.dtype.type(-1))
            if len(self.owner)
            else np.full(len(of), -1, np.int32)
        )
        if self.windows.empty:
            nothing = IntegerArray(np.zeros(len(rows), dtype=np.int64), np.ones(len(rows), dtype=np.bool_))
            return _categorical(rows, pd.Index([], dtype=object)), nothing
        codes, epochs = coded(self.windows["epoch"])
        # The last entry is that of -1.
        of_window = np.append(codes, -1).astype(np.int16 if len(epochs) < 1 << 15 else np.int64)
        numbers = _narrow(np.append(self.windows["window"].to_numpy(dtype=np.int64), 0))
        return _categorical(of_window[rows], epochs), IntegerArray(numbers[rows], rows < 0)


def _narrow(numbers: Ints) -> NDArray[np.signedinteger[Any]]:
    """Return `numbers` as 32-bit integers if each fits: of ten million reactions that is 40 MB less."""
    bounds = np.iinfo(np.int32)
    return numbers.astype(np.int32) if numbers.min() >= bounds.min and numbers.max() <= bounds.max else numbers


def _categorical(codes: Any, categories: pd.Index) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=categories)


def placed(topic: pd.DataFrame, windows: pd.DataFrame, planned: NDArray[np.int32] | None = None) -> Records:
    """Return the topic's records, each with the windows that cover it; without `planned` they are nobody's.

    The loop is over windows; each finds its records by binary search.
    """
    if planned is None:
        planned = np.full(len(topic), -1, dtype=np.int32)
    # Shares its columns with the topic, which may be let go with its timestamps.
    kept = {name: topic[name].array for name in topic.columns if name != "timestamp"}
    ordered = pd.DataFrame(kept, copy=False)
    if not _in_order(ordered):
        order = np.lexsort((ordered["offset"], ordered["partition"]))
        ordered, planned = ordered.take(order).reset_index(drop=True), planned[order]
    partitions, offsets = ordered["partition"].to_numpy(), ordered["offset"].to_numpy()
    known = unique_windows(windows)
    numbers = {key: row for row, key in enumerate(zip(known["epoch"], known["window"], strict=True))}
    # No more than the windows, of which a run has at most thousands.
    small = np.int16 if len(known) <= np.iinfo(np.int16).max else np.int32
    owner: Codes = np.full(len(ordered), -1, dtype=small)
    covers: Codes = np.zeros(len(ordered), dtype=small)
    distinct = pd.unique(partitions)
    begins = np.searchsorted(partitions, distinct, "left").tolist()
    ends = np.searchsorted(partitions, distinct, "right").tolist()
    bounds = dict(zip(distinct.tolist(), zip(begins, ends, strict=True), strict=True))
    ranges = offset_ranges(known)
    keys = zip(ranges["epoch"], ranges["window"], strict=True)
    edges = ranges[["partition", "first", "last"]].to_numpy(dtype=np.int64).tolist()
    spans = []
    for key, (partition, first, last) in zip(keys, edges, strict=True):
        start, stop = bounds.get(partition, (0, 0))
        inside = offsets[start:stop]
        span = slice(
            start + int(np.searchsorted(inside, first, "left")), start + int(np.searchsorted(inside, last, "right"))
        )
        covers[span] += 1
        owner[span] = np.where(owner[span] == -1, numbers[key], owner[span])
        spans.append((numbers[key], span))
    return Records(ordered, planned, known, owner, covers, spans)


def _in_order(topic: pd.DataFrame) -> bool:
    partitions, offsets = topic["partition"].to_numpy(), topic["offset"].to_numpy()
    if not (partitions[1:] >= partitions[:-1]).all():
        return False
    return bool(((offsets[1:] >= offsets[:-1]) | (partitions[1:] != partitions[:-1])).all())


def identified(plan: pd.DataFrame, topic: pd.DataFrame) -> NDArray[np.int32]:
    """Return of each record in the topic the row of the planned reaction, -1 if there is none.

    A record with a null emoji_type (a probe or malformed) counts nothing and has none. Raises LedgerError for two
    planned reactions of a user in the same microsecond.
    """
    if plan.empty or topic.empty:
        return np.full(len(topic), -1, dtype=np.int32)
    planned_us = plan["t_intended_ns"].to_numpy(dtype=np.int64) // NS_PER_US
    users, names = coded(plan["user_id"])
    first_us, last_us, width = int(planned_us.min()), int(planned_us.max()), len(names) + 1
    if (last_us - first_us + 1) * width > np.iinfo(np.int64).max:
        raise LedgerError(
            f"The plan has t_intended_ns from {first_us * NS_PER_US} to {last_us * NS_PER_US}: no run lasts as long. "
            "Correct the stamp that is wrong."
        )
    # A key for each pair of moment and user; a null user has the number 0.
    keys = (planned_us - first_us) * width + (users + 1)
    del planned_us
    order = np.argsort(keys, kind="stable").astype(np.int32)
    keys = keys[order]
    _check_apart(plan, order[1:][keys[1:] == keys[:-1]])
    senders, seen = coded(topic["user_id"])
    # Of each distinct sender its number in the plan, -1 without one; the last entry is that of null.
    of_sender = np.append(np.where((found := names.get_indexer(seen)) >= 0, found + 1, -1), 0)
    moments_us, countable = microseconds(topic["timestamp"]), topic["emoji_type"].notna().to_numpy(dtype=np.bool_)
    rows = np.full(len(topic), -1, dtype=np.int32)
    for part in pieces(len(topic)):
        numbers, us = of_sender[senders[part]], moments_us[part]
        possible = countable[part] & (numbers >= 0) & (us >= first_us) & (us <= last_us)
        wanted = np.where(possible, (us - first_us) * width + numbers, 0)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        rows[part] = np.where(possible & (keys[at] == wanted), order[at], np.int32(-1))
    return rows


def _check_apart(plan: pd.DataFrame, again: NDArray[np.int32]) -> None:
    """Raise LedgerError naming the first row of the plan in `again`: it has the user and microsecond of another."""
    if len(again):
        row = plan.iloc[int(again.min())]
        raise LedgerError(
            f"The plan has seq {row['seq']} in the same microsecond as another reaction of {row['user_id']}: "
            "make the plan with experiments.load.plan.plan_of, which keeps them apart."
        )


def join(plan: pd.DataFrame, sent: pd.DataFrame, topic: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Return the ledger: `joined` for frames as a run left them, sharing nothing with them."""
    for name, frame in (("plan", plan), ("sent", sent), ("topic", topic)):
        require(name, frame)
    return joined(plan, sent, placed(topic, windows, identified(plan, topic))).copy()


def joined(plan: pd.DataFrame, sent: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Return the ledger: REACTION_COLUMNS, one row per planned reaction in order of `seq`, Int64 null where absent.

    A reaction that is in the topic more than once gets the offset at which it was first counted, or first written if it
    was not counted; accuracy.conservation counts and names the copies. Columns that are in order already are not
    copied, but shared with the frames.
    """
    seq = plan["seq"].to_numpy(dtype=np.int64)
    answered = _answers(seq, sent)
    place = _first_records(len(plan), records)
    order = None if (seq[1:] > seq[:-1]).all() else np.argsort(seq, kind="stable")
    columns: dict[str, Any] = {"seq": seq if order is None else seq[order]}
    if order is not None and (again := columns["seq"][1:][columns["seq"][1:] == columns["seq"][:-1]]).size:
        raise LedgerError(f"The plan has seq {again[0]} twice: give each planned reaction a number of its own.")
    for name in COLUMNS["plan"][1:]:
        columns[name] = plan[name].array if order is None else plan[name].array[order]
    for name in COLUMNS["sent"][1:]:
        columns[name] = _taken(sent[name], answered if order is None or answered is None else answered[order], order)
    if order is not None:
        place = place[order]
    for name in ("partition", "offset", "accepted_ns", "flushed_ns", "appended_ns"):
        columns[name] = _taken(records.topic[name], place)
    columns["epoch"], columns["window"] = records.places(place)
    return pd.DataFrame({name: columns[name] for name in REACTION_COLUMNS}, copy=False)


def _answers(seq: Ints, sent: pd.DataFrame) -> Codes | None:
    """Return of each planned reaction its row in the sent frame, -1 without one; None if the rows are the same."""
    answers, _ = integers(sent["seq"])
    if len(answers) == len(seq) and (answers == seq).all() and (seq[1:] > seq[:-1]).all():
        return None
    order = np.argsort(answers, kind="stable")
    ordered = answers[order]
    again = order[1:][ordered[1:] == ordered[:-1]]
    if len(again):
        raise LedgerError(
            f"The sent frame has seq {answers[again.min()]} twice: the sender must write one row per planned reaction."
        )
    if not len(ordered):
        return np.full(len(seq), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(ordered, seq), len(ordered) - 1)
    return np.where(ordered[at] == seq, order[at], -1)


def _first_records(count: int, records: Records) -> NDArray[np.int32]:
    """Return of each of the plan's `count` rows the first of its records: a counted one, if there is any."""
    planned = records.planned
    place = np.full(count, -1, dtype=np.int32)
    own = np.flatnonzero(planned >= 0).astype(np.int32)
    place[planned[own]] = own
    if (place[planned[own]] == own).all():
        return place
    copied = np.bincount(planned[own], minlength=count) > 1
    own = own[copied[planned[own]]]
    frame = records.topic.iloc[own]
    ordered = own[np.lexsort((frame["offset"], frame["appended_ns"], records.covers[own] == 0))]
    rows, first = np.unique(planned[ordered], return_index=True)
    place[rows] = ordered[first]
    return place


def _taken(values: pd.Series, rows: Codes | None, order: Codes | None = None) -> IntegerArray:
    """Return the values at `rows`, null for -1; without `rows` all values, in `order` if there is one."""
    numbers, null = integers(values)
    if rows is None:
        rows = order
    if rows is None:
        return IntegerArray(numbers, null)
    if not len(numbers):
        return IntegerArray(np.zeros(len(rows), dtype=np.int64), np.ones(len(rows), dtype=np.bool_))
    return IntegerArray(numbers[rows], null[rows] | (rows < 0))


def accepted(reactions: pd.DataFrame) -> Bools:
    """Return which rows of the ledger were answered 202."""
    return (reactions["status"] == 202).fillna(False).to_numpy(dtype=bool)


def window_codes(reactions: pd.DataFrame) -> tuple[Codes, pd.DataFrame]:
    """Return of each reaction the row in `epoch, window` of its window, -1 without one, and those windows.

    The windows are in order of their first reaction.
    """
    epochs, names = coded(reactions["epoch"])
    numbers, null = integers(reactions["window"])
    null |= epochs < 0
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    width = high - low + 1
    codes = np.empty(len(reactions), dtype=np.int32)
    known: dict[int, int] = {}
    for part in pieces(len(reactions)):
        pairs = np.where(null[part], -1, epochs[part].astype(np.int64) * width + (numbers[part] - low))
        of_piece, distinct = pd.factorize(pairs)
        found = [-1 if pair < 0 else known.setdefault(pair, len(known)) for pair in distinct.tolist()]
        codes[part] = np.asarray(found, dtype=np.int32)[of_piece]
    pairs = np.fromiter(known, dtype=np.int64, count=len(known))
    windows = {"epoch": np.asarray(names, dtype=object)[pairs // width], "window": pairs % width + low}
    return codes, pd.DataFrame(windows)


def microseconds(timestamps: pd.Series | pa.Array | pa.ChunkedArray) -> Ints:
    """Return ISO 8601 timestamps as microseconds since the epoch; the least integer for null or another form."""
    if isinstance(timestamps, pd.Series):
        if pd.api.types.is_datetime64_any_dtype(timestamps.dtype):
            return np.asarray(timestamps.to_numpy(dtype="datetime64[us]"), dtype="datetime64[us]").view(np.int64)
        try:
            timestamps = pa.array(timestamps, pa.string(), from_pandas=True)
        except pa.ArrowException:
            return _any_form(timestamps)
    try:
        moments = timestamps.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return _any_form(timestamps.to_pandas())
    return np.asarray(moments.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy(), dtype=np.int64)


def _any_form(timestamps: pd.Series) -> Ints:
    moments = pd.to_datetime(timestamps, utc=True, format="ISO8601", errors="coerce")
    return np.asarray(moments.to_numpy(dtype="datetime64[us]"), dtype="datetime64[us]").view(np.int64)
