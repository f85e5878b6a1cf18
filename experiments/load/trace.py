"""A recorded audience to replay: a CSV with `offset_ms,user_id,emoji_type`, read and checked before a run."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.load.schedule import check_phases, plan_frame
from experiments.units import NS_PER_MS, NS_PER_S, NS_PER_US
from pipeline.emojis import canonical
from pipeline.errors import SettingError
from pipeline.messages import USER_ID_MAX

COLUMNS = ("offset_ms", "user_id", "emoji_type")
# With or without the byte order mark that spreadsheets write first.
ENCODING = "utf-8-sig"
# A year: a larger value is in another unit, and would overflow in nanoseconds.
OFFSET_MAX_MS = 366 * 24 * 3_600_000


def read(path: Path) -> pd.DataFrame:
    """Return `offset_ms` (int64, from the recording's start), `user_id` and `emoji_type`, in the file's order.

    `emoji_type` comes back fully qualified, as ingest counts it; other columns are left out. Raises
    SettingError naming the file, and the line, column and value of the first error: a missing column, an offset
    that is not a whole number of ms from 0 or is below the one before it, an empty or overlong user, a value that
    is not one emoji, no row at all.
    """
    try:
        with warnings.catch_warnings():
            # A first row longer than the header is cut to fit it, with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding=ENCODING, skip_blank_lines=False, index_col=False
            )
    except FileNotFoundError as error:
        raise SettingError(f"trace {path} does not exist: give the path of a CSV with {','.join(COLUMNS)}") from error
    except pd.errors.EmptyDataError as error:
        raise SettingError(f"trace {path} is empty: begin it with the line {','.join(COLUMNS)}") from error
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise SettingError(f"trace {path} cannot be read as CSV in UTF-8 ({error}): fix or replace it") from error
    for column in COLUMNS:
        if column not in frame.columns:
            raise SettingError(
                f"trace {path} has the columns {','.join(map(str, frame.columns))} and lacks {column!r}: "
                f"begin it with the line {','.join(COLUMNS)}"
            )
    if frame.empty:
        raise SettingError(f"trace {path} has no row below its first line: add reactions to replay")
    whole = frame["offset_ms"].str.fullmatch(r"[0-9]{1,18}").to_numpy(dtype=bool)
    _refuse(path, frame, "offset_ms", ~whole, "give whole milliseconds from 0")
    offsets = frame["offset_ms"].to_numpy().astype(np.int64)
    _refuse(path, frame, "offset_ms", offsets > OFFSET_MAX_MS, f"give ms since the start, at most {OFFSET_MAX_MS}")
    behind = np.append(False, np.diff(offsets) < 0)
    _refuse(path, frame, "offset_ms", behind, "it is below the one before it: sort the rows by offset_ms")
    length = frame["user_id"].str.len().to_numpy()
    _refuse(path, frame, "user_id", (length < 1) | (length > USER_ID_MAX), f"give 1 to {USER_ID_MAX} characters")
    emojis = frame["emoji_type"].map(canonical)
    _refuse(path, frame, "emoji_type", emojis.isna().to_numpy(), "give exactly one emoji")
    return pd.DataFrame({"offset_ms": offsets, "user_id": frame["user_id"], "emoji_type": emojis})


def summary(recorded: pd.DataFrame, speed: float = 1.0) -> str:
    """Return in one sentence what a recording holds, and how long it takes at a speed other than its own."""
    minutes = int(recorded["offset_ms"].iloc[-1]) * NS_PER_MS / (60 * NS_PER_S)
    replay = f", replayed in {minutes / speed:.1f} minutes" if speed != 1 else ""
    return (
        f"{len(recorded):,} reactions of {recorded['user_id'].nunique():,} users and "
        f"{recorded['emoji_type'].nunique()} emoji types in {minutes:.1f} minutes{replay}"
    )


def replayed(recorded: pd.DataFrame, speed: float, start_ns: int) -> pd.DataFrame:
    """Return `user_id, emoji_type, t_ns` in order of time: the recording from `start_ns` on, `speed` times as fast.

    A recording counts in milliseconds, so one user may have several reactions at once. A microsecond identifies a
    reaction of a user: each of them is therefore moved a microsecond behind the one before.
    """
    t_ns = start_ns + np.rint(recorded["offset_ms"].to_numpy() * (NS_PER_MS / speed)).astype(np.int64)
    moments = pd.DataFrame({"user": recorded["user_id"], "us": t_ns // NS_PER_US})
    number = moments.groupby("user").cumcount()
    # The smallest times that rise by at least 1 within a user: a running maximum after subtracting that rise.
    apart = (moments["us"] - number).groupby(moments["user"]).cummax() + number
    moved_ns = t_ns + (apart - moments["us"]).to_numpy() * NS_PER_US
    frame = recorded[["user_id", "emoji_type"]].assign(t_ns=moved_ns)
    return frame.sort_values("t_ns", kind="stable", ignore_index=True)


def trace_plan(
    recorded: pd.DataFrame,
    speed: float,
    start_ns: int,
    *,
    trigger_s: float,
    warm_up_triggers: int,
    measured_triggers: int,
    seed: int,
) -> pd.DataFrame:
    """Return the plan that replays what `read` returned, `speed` times as fast.

    Users, emoji and times are the recording's (see `replayed`); the phases, and the seeded offset of the start, are as
    in `schedule.poisson_plan`. The replay begins with the warm-up and ends with the measured phase. Raises SettingError
    if the recording ends before that.
    """
    check_phases(trigger_s, warm_up_triggers, measured_triggers)
    trigger_ns = round(trigger_s * NS_PER_S)
    warm_up_ns, length_ns = warm_up_triggers * trigger_ns, (warm_up_triggers + measured_triggers) * trigger_ns
    load_start_ns = start_ns + int(np.random.default_rng(seed).integers(0, trigger_ns))
    rows = replayed(recorded, speed, load_start_ns)
    lasts_ns = int(rows["t_ns"].iloc[-1]) - load_start_ns
    if lasts_ns < length_ns:
        raise SettingError(
            f"the trace lasts {lasts_ns / NS_PER_S:.1f} s at speed {speed:g}, and {warm_up_triggers} + "
            f"{measured_triggers} triggers of {trigger_s:g} s take {length_ns / NS_PER_S:g} s: lower "
            "measured_triggers, warm_up_triggers or speed"
        )
    rows = rows[rows["t_ns"] < load_start_ns + length_ns]
    return plan_frame(rows["user_id"], rows["emoji_type"], rows["t_ns"].to_numpy(), load_start_ns + warm_up_ns)


def _refuse(path: Path, frame: pd.DataFrame, column: str, wrong: np.ndarray, remedy: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        value = frame[column].iloc[row]
        raise SettingError(f"trace {path} line {_line_of(path, row)}, column {column} is {value!r}: {remedy}")


def _line_of(path: Path, row: int) -> int:
    """Return the line on which a data row ends; a quoted field may span several lines."""
    with path.open(encoding=ENCODING, newline="") as file:
        reader = csv.reader(file)
        for _ in range(row + 2):
            next(reader, None)
        return reader.line_num
