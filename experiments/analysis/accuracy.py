"""Check that counts and answers are right, in integers: conservation, oracle, offsets, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.ledger import (
    WINDOW_KEY,
    accepted,
    cells,
    identified,
    offset_ranges,
    placed,
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
    plan: pd.DataFrame, reactions: pd.DataFrame, topic: pd.DataFrame, windows: pd.DataFrame
) -> Conservation:
    """Return the balance of `reactions` (ledger.join of the same frames) against topic and windows."""
    records = identified(plan, placed(topic, windows))
    planned = records[records["seq"].notna()].astype({"seq": "int64"})
    per_seq = planned.groupby("seq")["covers"].sum()
    covers = per_seq.reindex(reactions["seq"], fill_value=0).to_numpy(dtype=np.int64)
    ok = accepted(reactions)
    lost = ok & (covers == 0)
    twice = covers > 1
    intended = plan.set_index("seq")["emoji_type"].reindex(planned["seq"]).to_numpy(dtype=object)
    altered = planned["emoji_type"].to_numpy(dtype=object) != intended
    foreign = records[records["seq"].isna() & (records["covers"] > 0)]
    counted = int(cells(unique_windows(windows))["count"].sum())
    missing = reactions["offset"].isna().to_numpy(dtype=bool)
    problems = [
        _named("lost", reactions[lost & missing], "answered 202 but not in the topic"),
        _named("lost", reactions[lost & ~missing], "in the topic but in no window"),
        _named("duplicated", reactions[twice], "counted more than once").assign(
            detail=[f"counted {n} times" for n in covers[twice]]
        ),
        _named("altered", planned[altered], "another emoji than planned").assign(
            detail=[f"planned as {emoji}" for emoji in intended[altered]]
        ),
        _named("foreign", foreign, "counted, but not in this run's plan"),
        _conflicts(windows),
    ]
    return Conservation(
        planned=len(plan),
        accepted=int(ok.sum()),
        in_topic=int((ok & ~missing).sum()),
        counted=counted,
        lost=int(lost.sum()),
        duplicated=int((covers[twice] - 1).sum()),
        altered=int(altered.sum()),
        unacknowledged=int((~ok & (covers > 0)).sum()),
        foreign=int(foreign["covers"].sum()),
        unexplained=counted - int(records["covers"].sum()),
        problems=pd.concat([part.astype(object) for part in problems], ignore_index=True),
    )


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


def oracle(topic: pd.DataFrame, windows: pd.DataFrame) -> Oracle:
    """Recompute each window from the records at its offsets and compare all its counts."""
    known = unique_windows(windows)
    counts = cells(known).groupby([*WINDOW_KEY, "emoji_type"], as_index=False)["count"].sum()
    malformed = known[[*WINDOW_KEY, "malformed"]].rename(columns={"malformed": "count"}).assign(emoji_type=None)
    emitted = pd.concat([counts.astype(object), malformed.astype(object)]).rename(columns={"count": "emitted"})
    expected = _recomputed(topic, known)
    both = emitted.merge(expected, on=[*WINDOW_KEY, "emoji_type"], how="outer")
    for side in ("emitted", "expected"):
        both[side] = both[side].astype("Int64").fillna(0).astype("int64")
    both = both[both["emoji_type"].notna() | (both["emitted"] != both["expected"])]
    differing = both[both["emitted"] != both["expected"]].reset_index(drop=True)
    return Oracle(len(both), len(both) - len(differing), differing)


def _recomputed(topic: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    ordered = topic.sort_values(["partition", "offset"])
    parts = []
    by_partition = dict(iter(ordered.groupby("partition")))
    for item in offset_ranges(windows).itertuples(index=False):
        rows = by_partition.get(item.partition)
        if rows is None:
            continue
        low = int(rows["offset"].searchsorted(item.first, "left"))
        high = int(rows["offset"].searchsorted(item.last, "right"))
        counts = rows["emoji_type"].iloc[low:high].value_counts(dropna=False)
        parts.append(
            pd.DataFrame(
                {
                    "epoch": item.epoch,
                    "window": item.window,
                    "emoji_type": [kind if isinstance(kind, str) else None for kind in counts.index],
                    "expected": counts.to_numpy(dtype=np.int64),
                }
            ).astype(object)
        )
    names = [*WINDOW_KEY, "emoji_type", "expected"]
    if not parts:
        return pd.DataFrame(columns=names, dtype=object)
    whole = pd.concat(parts).astype({"expected": "int64"})
    summed = whole.groupby([*WINDOW_KEY, "emoji_type"], as_index=False, dropna=False)["expected"].sum()
    # The null type comes back as NaN; the emitted side has None.
    kinds = [kind if isinstance(kind, str) else None for kind in summed["emoji_type"]]
    return pd.DataFrame(summed.assign(emoji_type=pd.Series(kinds, index=summed.index, dtype=object)))


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
