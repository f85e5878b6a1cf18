"""A recorded audience to replay: a CSV with `offset_ms,user_id,emoji_type`, read and checked before a run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments import text_files
from experiments.load.schedule import check_phases, plan_frame
from experiments.units import NS_PER_MS, NS_PER_S, NS_PER_US
from pipeline.emojis import recognise, why_not
from pipeline.errors import SettingError
from pipeline.messages import USER_ID_MAX

COLUMNS = ("offset_ms", "user_id", "emoji_type")
SEPARATORS = ",;\t|"
# The line with which Excel writes and reads a separator.
_NAMED_SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?\s*', re.IGNORECASE)
# A year: a larger value is in another unit, and would overflow in nanoseconds.
OFFSET_MAX_MS = 366 * 24 * 3_600_000
SHOWN_MAX = 80


def read(path: Path) -> pd.DataFrame:
    """Return `offset_ms` (int64, from the recording's start), `user_id` and `emoji_type`, in the file's order.

    `emoji_type` comes back fully qualified, as ingest counts it; other columns are left out. Raises
    SettingError as `rows` and `offsets` do, and for an empty or overlong user or a value that is not one emoji.
    """
    frame = rows(path, COLUMNS)
    offset_ms = offsets(path, frame)
    length = frame["user_id"].str.len().to_numpy()
    _refuse(path, frame, "user_id", (length < 1) | (length > USER_ID_MAX), f"give 1 to {USER_ID_MAX} characters")
    spelled = {typed: recognise(typed) for typed in frame["emoji_type"].unique()}
    emojis = frame["emoji_type"].map(spelled)
    unknown = emojis.isna().to_numpy()
    if unknown.any():
        _refuse(path, frame, "emoji_type", unknown, why_not(frame["emoji_type"].iloc[int(np.argmax(unknown))]))
    return pd.DataFrame({"offset_ms": offset_ms, "user_id": frame["user_id"], "emoji_type": emojis})


def rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return `columns` of a CSV as text, and the `line` on which each row ends, in the file's order.

    The file may be as spreadsheets write it: with a byte order mark, any line ends, a line `sep=…` first, one of
    SEPARATORS, quoted fields, blank lines, further columns. The first line names the columns; letter case, spaces and
    punctuation in the names do not matter. Raises SettingError naming the file, and the line where there is one, for
    another encoding, a missing or repeated column, a row with too many fields, quotes that do not match, no row at all.
    """
    remedy = f"begin it with the line {','.join(columns)}"
    try:
        text = text_files.read(path, "trace")
    except FileNotFoundError as error:
        raise SettingError(f"trace {path} does not exist: give the path of a CSV with {','.join(columns)}") from error
    except OSError as error:
        raise SettingError(f"trace {path} cannot be read ({error.strerror}): give the path of a CSV file") from error
    names, records = _parsed(path, text, columns)
    if not names:
        raise SettingError(f"trace {path} is empty: {remedy}")
    keys = [_key(name) for name in names]
    for column in columns:
        if (times := keys.count(_key(column))) != 1:
            has = f"trace {path} has the columns {','.join(names)}"
            raise SettingError(
                f"{has} and lacks {column!r}: {remedy}" if not times else f"{has}, {column!r} {times} times: keep one"
            )
    places = [keys.index(_key(column)) for column in columns]
    found = [[*(record[place] for place in places), line] for line, record in records]
    if not found:
        raise SettingError(f"trace {path} has no row below its first line: add reactions to replay")
    return pd.DataFrame(found, columns=[*columns, "line"])


def offsets(path: Path, frame: pd.DataFrame) -> NDArray[np.int64]:
    """Return the column `offset_ms` of `rows` as numbers.

    Raises SettingError naming the line and the value of one that is not a whole number of ms from 0, or is below the
    one before it.
    """
    digits = frame["offset_ms"].str.strip()
    whole = digits.str.fullmatch(r"[0-9]{1,18}").to_numpy(dtype=bool)
    _refuse(
        path, frame, "offset_ms", ~whole, "give whole milliseconds from 0, in digits without separators or decimals"
    )
    offset_ms = digits.to_numpy().astype(np.int64)
    _refuse(path, frame, "offset_ms", offset_ms > OFFSET_MAX_MS, f"give ms since the start, at most {OFFSET_MAX_MS}")
    behind = np.append(False, np.diff(offset_ms) < 0)
    _refuse(path, frame, "offset_ms", behind, "it is below the one before it: sort the rows by offset_ms")
    return offset_ms


def _parsed(path: Path, text: str, columns: Sequence[str]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the names of the columns, and the rows below, each with its line and a field for every name."""
    wanted = set(map(_key, columns))
    lines = io.StringIO(text, newline="")
    separators = SEPARATORS
    for above, line in enumerate(lines, 1):
        if named := _NAMED_SEPARATOR.fullmatch(line):
            separators = named[1]
        elif line.strip():
            split = {separator: _fields(line, separator) for separator in separators}
            separator = max(split, key=lambda separator: len(wanted & set(map(_key, split[separator]))))
            reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
            return split[separator], _records(path, reader, above, len(split[separator]))
    return [], iter(())


def _fields(line: str, separator: str) -> list[str]:
    return [name.strip().strip('"') for name in line.split(separator)]


def _key(name: str) -> str:
    """Return the letters and digits of a column's name, by which it is found."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _records(path: Path, reader: Any, above: int, width: int) -> Iterator[tuple[int, list[str]]]:
    while True:
        begins = above + reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            what = (
                f"a field has more than {csv.field_size_limit():,} characters: shorten it"
                if "field larger" in str(error)
                else "a quotation mark has no partner: add or remove one"
            )
            raise SettingError(f"trace {path} line {begins}, {what}") from error
        if record is None:
            return
        line = above + reader.line_num
        if any(map(str.strip, record[width:])):
            raise SettingError(
                f"trace {path} line {line}, it has {len(record)} fields, and the line with the names has {width}: put "
                "a field that contains the separator in quotation marks, or remove one"
            )
        if any(map(str.strip, record)):
            yield line, record + [""] * (width - len(record))


def summary(recorded: pd.DataFrame, speed: float = 1.0) -> str:
    """Return in one sentence what a recording holds, and how long it takes at a speed other than its own."""
    minutes = _from_first_row(recorded)[-1] * NS_PER_MS / (60 * NS_PER_S)
    first_ms = int(recorded["offset_ms"].iloc[0])
    cut = f", from the first row on, which is at {first_ms:,} ms" if first_ms else ""
    replay = f", replayed in {minutes / speed:.1f} minutes" if speed != 1 else ""
    return (
        f"{len(recorded):,} reactions of {recorded['user_id'].nunique():,} users and "
        f"{recorded['emoji_type'].nunique()} emoji types in {minutes:.1f} minutes{replay}{cut}"
    )


def replayed(recorded: pd.DataFrame, speed: float, start_ns: int) -> pd.DataFrame:
    """Return `user_id, emoji_type, t_ns` in order of time: the recording from `start_ns` on, `speed` times as fast.

    Its first row is at `start_ns`, whatever its offset: a recording may be cut out of a longer one. It counts in
    milliseconds, so one user may have several reactions at once. A microsecond identifies a reaction of a user: each of
    them is therefore moved a microsecond behind the one before.
    """
    t_ns = start_ns + np.rint(_from_first_row(recorded) * (NS_PER_MS / speed)).astype(np.int64)
    moments = pd.DataFrame({"user": recorded["user_id"], "us": t_ns // NS_PER_US})
    number = moments.groupby("user").cumcount()
    # The smallest times that rise by at least 1 within a user: a running maximum after subtracting that rise.
    apart = (moments["us"] - number).groupby(moments["user"]).cummax() + number
    moved_ns = t_ns + (apart - moments["us"]).to_numpy() * NS_PER_US
    frame = recorded[["user_id", "emoji_type"]].assign(t_ns=moved_ns)
    return frame.sort_values("t_ns", kind="stable", ignore_index=True)


def _from_first_row(recorded: pd.DataFrame) -> NDArray[np.int64]:
    offset_ms = recorded["offset_ms"].to_numpy(dtype=np.int64)
    since_first: NDArray[np.int64] = offset_ms - offset_ms[0]
    return since_first


def trace_plan(
    recorded: pd.DataFrame,
    speed: float,
    start_ns: int,
    *,
    trigger_s: float,
    warm_up_triggers: int,
    measured_triggers: int,
    seed: int,
    after_triggers: int = 0,
) -> pd.DataFrame:
    """Return the plan that replays what `read` returned, `speed` times as fast.

    Users, emoji and times are the recording's (see `replayed`); the phases, and the seeded offset of the start, are as
    in `schedule.poisson_plan`. The replay begins with the warm-up. Raises SettingError if the recording ends
    before the load does.
    """
    check_phases(trigger_s, warm_up_triggers, measured_triggers)
    trigger_ns = round(trigger_s * NS_PER_S)
    warm_up_ns, upto_ns = warm_up_triggers * trigger_ns, (warm_up_triggers + measured_triggers) * trigger_ns
    length_ns = upto_ns + after_triggers * trigger_ns
    load_start_ns = start_ns + int(np.random.default_rng(seed).integers(0, trigger_ns))
    rows = replayed(recorded, speed, load_start_ns)
    lasts_ns = int(rows["t_ns"].iloc[-1]) - load_start_ns
    if lasts_ns < length_ns:
        phases = " + ".join(str(count) for count in (warm_up_triggers, measured_triggers, after_triggers) if count)
        raise SettingError(
            f"the trace lasts {lasts_ns / NS_PER_S:.1f} s at speed {speed:g}, and {phases} triggers of {trigger_s:g} s "
            f"take {length_ns / NS_PER_S:g} s: lower measured_triggers, warm_up_triggers or speed"
        )
    rows = rows[rows["t_ns"] < load_start_ns + length_ns]
    measured_ns = load_start_ns + warm_up_ns, load_start_ns + upto_ns
    return plan_frame(rows["user_id"], rows["emoji_type"], rows["t_ns"].to_numpy(), measured_ns)


def _refuse(path: Path, frame: pd.DataFrame, column: str, wrong: NDArray[np.bool_], remedy: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        value = frame[column].iloc[row]
        shown = repr(value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}…")
        raise SettingError(f"trace {path} line {frame['line'].iloc[row]}, column {column} is {shown}: {remedy}")
