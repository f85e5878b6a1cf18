"""Check that counts and answers are right, in integers: conservation, oracle, offsets, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.ledger import (
    WINDOW_KEY,
    Codes,
    Records,
    accepted,
    cells,
    coded,
    offset_ranges,
    pieces,
    unique_windows,
)

PROBLEM_COLUMNS = ("problem", "seq", "user_id", "emoji_type", "partition", "offset", "detail")


@dataclass(frozen=True)
class Conservation:
    """What happened to every accepted reaction; all numbers are reactions, over all phases.

    `lost`: accepted, counted by no window. `duplicated`: how often planned reactions were counted again.
    `altered`: in Kafka with another emoji than planned. `unacknowledged`: counted although never answered
    202. `foreign`: counted, but not of this plan. `counted`: the sum of all counts of all windows.
    `unexplained`: counted minus the records that the windows' offsets cover (0 if Spark's sums are right).
    `problems` names each lost, duplicated, altered or foreign reaction and each window emitted twice with
    different contents.
    """

    planned: int
    accepted: int
    in_topic: int
    counted: int
    lost: int
    duplicated: int
    altered: int
    unacknowledged: int
    foreign: int
    unexplained: int
    problems: pd.DataFrame

    @property
    def exact(self) -> bool:
        """Whether every accepted reaction was counted exactly once and nothing else was wrong."""
        return not (self.lost or self.duplicated or self.altered or self.unexplained or len(self.problems))


def conservation(
    plan: pd.DataFrame,
    reactions: pd.DataFrame,
    records: Records,
    windows: pd.DataFrame,
) -> Conservation:
    """Return the balance of `reactions` (ledger.joined of the same records) against topic and windows."""
    planned = records.planned
    covers = _counted(plan, records.covers, planned)
    ok = accepted(reactions)
    lost = ok & (covers == 0)
    twice = covers > 1
    countable = records.topic["emoji_type"].notna().to_numpy(dtype=bool)
    altered = np.flatnonzero(_altered(plan["emoji_type"], records.topic["emoji_type"], planned))
    intended = plan["emoji_type"].iloc[planned[altered]].to_numpy(dtype=object)
    foreign = np.flatnonzero(countable & (planned < 0) & (records.covers > 0))
    counted = int(cells(records.windows)["count"].sum())
    missing = reactions["offset"].isna().to_numpy(dtype=bool)
    problems = [
        _named("lost", reactions[lost & missing], "answered 202 but not in the topic"),
        _named("lost", reactions[lost & ~missing], "in the topic but in no window"),
        _named("duplicated", reactions[twice], "counted more than once").assign(
            detail=[f"counted {n} times" for n in covers[twice]]
        ),
        _named("altered", _of_plan(plan, records.topic.iloc[altered], planned[altered]), "").assign(
            detail=[f"planned as {emoji}" for emoji in intended]
        ),
        _named("foreign", records.topic.iloc[foreign].assign(seq=None), "counted, but not in this run's plan"),
        _conflicts(windows),
    ]
    return Conservation(
        planned=len(plan),
        accepted=int(ok.sum()),
        in_topic=int((ok & ~missing).sum()),
        counted=counted,
        lost=int(lost.sum()),
        duplicated=int((covers[twice] - 1).sum()),
        altered=len(altered),
        unacknowledged=int((~ok & (covers > 0)).sum()),
        foreign=int(records.covers[foreign].sum(dtype=np.int64)),
        unexplained=counted - int(records.covers[countable].sum(dtype=np.int64)),
        problems=pd.concat([part.astype(object) for part in problems], ignore_index=True),
    )


def _counted(plan: pd.DataFrame, covers: Codes, planned: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return by how many windows each planned reaction was counted, all copies together, in order of `seq`."""
    own = planned >= 0
    counts = np.zeros(len(plan), dtype=np.int32)
    np.add.at(counts, planned[own], covers[own])
    seq = plan["seq"].to_numpy(dtype=np.int64)
    return counts if (seq[1:] > seq[:-1]).all() else counts[np.argsort(seq, kind="stable")]


def _altered(intended: pd.Series, found: pd.Series, planned: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which records have another emoji than the planned reaction whose row is in `planned`."""
    wanted, kinds = coded(intended)
    seen, seen_kinds = coded(found)
    # Of each kind in the topic its number in the plan; the last entry is that of null.
    of_seen = np.append(np.where((number := kinds.get_indexer(seen_kinds)) >= 0, number, -2), -2)
    altered = np.zeros(len(planned), dtype=np.bool_)
    for part in pieces(len(planned)):
        rows = planned[part]
        if len(wanted):
            altered[part] = (rows >= 0) & (of_seen[seen[part]] != wanted[rows])
    return altered


def _of_plan(plan: pd.DataFrame, records: pd.DataFrame, rows: NDArray[np.int32]) -> pd.DataFrame:
    return records.assign(seq=plan["seq"].to_numpy(dtype=np.int64)[rows])


def _named(problem: str, rows: pd.DataFrame, detail: str) -> pd.DataFrame:
    return rows.assign(problem=problem, detail=detail)[list(PROBLEM_COLUMNS)]


def _conflicts(windows: pd.DataFrame) -> pd.DataFrame:
    """Name the windows that were emitted more than once with different contents: a replay must repeat them."""
    contents = ["total", "offsets", "reactions", "carried"]
    differing = windows.groupby(WINDOW_KEY, sort=False)[contents].nunique().gt(1).any(axis=1)
    details = [
        f"window {epoch}:{window} was emitted again with other contents" for epoch, window in differing[differing].index
    ]
    frame = pd.DataFrame({"problem": "conflicting", "detail": details})
    return frame.reindex(columns=list(PROBLEM_COLUMNS))


@dataclass(frozen=True)
class Oracle:
    """Every (window, type) cell, recomputed from the topic: how many cells there are, how many agree, which differ.

    `differing`: `epoch, window, emoji_type, emitted, expected`. A window whose number of malformed records is
    wrong has one more, differing cell, of type null.
    """

    cells: int
    equal: int
    differing: pd.DataFrame


def oracle(records: Records) -> Oracle:
    """Recompute each window from the records at its offsets and compare all its counts."""
    known = records.windows
    counts = cells(known).groupby([*WINDOW_KEY, "emoji_type"], as_index=False)["count"].sum()
    malformed = known[[*WINDOW_KEY, "malformed"]].rename(columns={"malformed": "count"}).assign(emoji_type=None)
    emitted = pd.concat([counts.astype(object), malformed.astype(object)]).rename(columns={"count": "emitted"})
    both = emitted.merge(_recomputed(records), on=[*WINDOW_KEY, "emoji_type"], how="outer")
    for side in ("emitted", "expected"):
        both[side] = both[side].astype("Int64").fillna(0).astype("int64")
    both = both[both["emoji_type"].notna() | (both["emitted"] != both["expected"])]
    differing = both[both["emitted"] != both["expected"]].reset_index(drop=True)
    return Oracle(len(both), len(both) - len(differing), differing)


def _recomputed(records: Records) -> pd.DataFrame:
    """Return `epoch, window, emoji_type, expected`: each window's records by type, null if malformed."""
    codes, kinds = coded(records.topic["emoji_type"])
    counts = np.zeros((len(records.windows), len(kinds) + 1), dtype=np.int64)
    for row, span in records.spans:
        counts[row] += np.bincount(codes[span] + np.int64(1), minlength=len(kinds) + 1)
    rows, numbers = np.nonzero(counts)
    return pd.DataFrame(
        {
            "epoch": records.windows["epoch"].to_numpy(dtype=object)[rows],
            "window": records.windows["window"].to_numpy(dtype=object)[rows],
            "emoji_type": np.array([None, *kinds], dtype=object)[numbers],
            "expected": counts[rows, numbers].astype(object),
        }
    )


def offset_breaks(windows: pd.DataFrame) -> pd.DataFrame:
    """Return where consecutive windows of an epoch do not meet: `epoch, partition, window, previous_window,
    kind, first, previous_last, records`; `kind` is "gap" or "overlap" and `records` how many are skipped or
    read twice.
    """
    ranges = offset_ranges(unique_windows(windows)).sort_values(["epoch", "partition", "window"])
    before = ranges.groupby(["epoch", "partition"])[["window", "last"]].shift().astype("Int64")
    step = ranges["first"] - before["last"] - 1
    frame = ranges.assign(
        previous_window=before["window"],
        previous_last=before["last"],
        kind=np.where(step.fillna(0) > 0, "gap", "overlap"),
        records=step.abs(),
    )
    names = ["epoch", "partition", "window", "previous_window", "kind", "first", "previous_last", "records"]
    return frame[(step != 0).fillna(False).to_numpy(dtype=bool)][names].reset_index(drop=True)


def answers_unexpected(invalid: pd.DataFrame) -> pd.DataFrame:
    """Return the invalid requests that were answered otherwise than they must be: `case, expected, status, requests`.

    A request without an answer has status 0.
    """
    wrong = invalid[invalid["status"] != invalid["expected"]]
    kinds = wrong.groupby(["case", "expected", "status"], as_index=False, sort=False).size()
    return kinds.rename(columns={"size": "requests"})
