"""The rows of a run as the repository keeps them: small, and lossless.

A plan follows from its seed and is made again; parts of it may have been left out or moved, as a warm-up that ended
early does. A record of the topic is kept as the `seq` of its row in the plan, without what that row says (user, emoji,
timestamp). Everything else is kept as it is, in an encoding that fits it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiments import files
from experiments.load.plan import plan_of
from experiments.load.schedule import timestamps
from experiments.parameters import checked
from pipeline.errors import EmoStreamError

PLANNED = ("user_id", "emoji_type", "timestamp")
"""The columns of the topic that follow from the plan."""
ZSTD_LEVEL = 19
PIECES_MAX = 100


def packed(
    frames: Mapping[str, pd.DataFrame], parameters: Mapping[str, Any]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return a run's frames as they are kept, and what is needed to unpack them.

    The second is `plan`, if the plan follows from the parameters: `start_ns`, its `pieces` (first and last seq, and by
    how many ns they were moved), and the `sha256` of its rows. What cannot be made again exactly is kept whole.
    """
    kept, needed = dict(frames), {}
    if (again := _made_again(frames["plan"], parameters)) is not None:
        needed["plan"] = {**again, "sha256": _hash(frames["plan"])}
        del kept["plan"]
    topic = _by_seq(frames["topic"], frames["plan"])
    if _in_full(topic, frames["plan"]).equals(frames["topic"]):
        kept["topic"] = topic
    return kept, needed


def unpacked(
    kept: Mapping[str, pd.DataFrame], needed: Mapping[str, Any], parameters: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return the frames that `packed` was given. Raises EmoStreamError if the plan cannot be made again as it was."""
    frames = dict(kept)
    if plan := needed.get("plan"):
        frames["plan"] = _of_pieces(plan_of(checked(dict(parameters)), int(plan["start_ns"])), plan["pieces"])
        if _hash(frames["plan"]) != plan["sha256"]:
            raise EmoStreamError(
                "the plan that its seed gives now is not the plan that was sent: experiments/load has changed since. "
                "Read the run with the code of its commit, or measure and keep the campaign again"
            )
    if "seq" in frames["topic"]:
        frames["topic"] = _in_full(frames["topic"], frames["plan"])
    return frames


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as parquet: zstd at a high level, differences of integers, dictionaries of text."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    whole = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    with files.writing(path):
        pq.write_table(
            table,
            path,
            compression="zstd",
            compression_level=ZSTD_LEVEL,
            use_dictionary=text,
            column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
            write_statistics=False,
        )


def _made_again(plan: pd.DataFrame, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the start and the pieces from which the parameters give `plan`.

    None if they do not, as with a recording that is gone.
    """
    try:
        given = checked(dict(parameters))
        start_ns = int(plan["t_intended_ns"].iloc[0]) - int(plan_of(given, 0)["t_intended_ns"].iloc[0])
        whole = plan_of(given, start_ns)
        due_ns = whole.set_index("seq")["t_intended_ns"].reindex(plan["seq"])
    except (EmoStreamError, LookupError):
        return None
    if due_ns.isna().any():
        return None
    seq, moved_ns = plan["seq"].to_numpy(), plan["t_intended_ns"].to_numpy() - due_ns.to_numpy(dtype=np.int64)
    breaks = np.flatnonzero((np.diff(seq) != 1) | (np.diff(moved_ns) != 0))
    firsts, lasts = [0, *(breaks + 1)], [*breaks, len(seq) - 1]
    if len(firsts) > PIECES_MAX:
        return None
    pieces = [[int(seq[a]), int(seq[b]), int(moved_ns[a])] for a, b in zip(firsts, lasts, strict=True)]
    return {"start_ns": start_ns, "pieces": pieces} if _of_pieces(whole, pieces).equals(plan) else None


def _of_pieces(whole: pd.DataFrame, pieces: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Return the pieces of a whole plan, in their order, each moved. `seq` counts the rows of a whole plan."""
    parts = [
        whole.iloc[first : last + 1].assign(t_intended_ns=lambda rows, by=by: rows["t_intended_ns"] + by)  # type: ignore[misc]
        for first, last, by in pieces
    ]
    return pd.concat(parts, ignore_index=True)


def _hash(plan: pd.DataFrame) -> str:
    rows = pd.util.hash_pandas_object(plan, index=False).to_numpy(dtype=np.uint64)
    return hashlib.sha256(rows.tobytes()).hexdigest()


def _of_plan(plan: pd.DataFrame) -> pd.DataFrame:
    """Return what the topic holds of each row of the plan: PLANNED, and `seq`."""
    return plan[["seq", "user_id", "emoji_type"]].assign(
        timestamp=timestamps(plan["t_intended_ns"].to_numpy(dtype=np.int64))
    )[["seq", *PLANNED]]


def _by_seq(topic: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Return the topic with `seq` (Int64): PLANNED are null where the row of the plan says the same."""
    planned = _of_plan(plan).drop_duplicates(["user_id", "timestamp"])
    rows = topic[list(PLANNED)].merge(planned, on=["user_id", "timestamp"], how="left", suffixes=("", "_planned"))
    found = rows["seq"].notna().to_numpy(dtype=bool)
    alike = found & (rows["emoji_type"] == rows["emoji_type_planned"]).to_numpy(dtype=bool)
    columns = {name: topic[name].astype(object).mask(found, None) for name in ("user_id", "timestamp")}
    columns["emoji_type"] = topic["emoji_type"].astype(object).mask(alike, None)
    return topic.assign(**columns, seq=rows["seq"].astype("Int64").to_numpy())


def _in_full(topic: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Return the topic with PLANNED from the plan where it has a `seq` and no text of its own."""
    seq = topic["seq"].astype("Int64")
    found = seq.notna().to_numpy(dtype=bool)
    rows = _of_plan(plan).set_index("seq").loc[seq[found].to_numpy(dtype=np.int64)]
    columns = {}
    for name in PLANNED:
        values = topic[name].to_numpy(dtype=object).copy()
        values[found] = np.where(pd.isna(values[found]), rows[name].to_numpy(dtype=object), values[found])
        columns[name] = values
    return topic.assign(**columns).drop(columns="seq")
