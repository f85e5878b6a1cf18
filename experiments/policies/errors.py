"""The policies compared: what each shows of the same counts, and how far that is off.

Counts are a frame of `window, emoji_type, count`, a row per cell (a type in a window where it occurs), as `windowed`
makes it from a trace or a plan. No chain is needed: the policies are the chain's own functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from experiments.analysis.representation import tv_distance
from experiments.load import trace
from experiments.load.schedule import poisson_plan, user_names
from experiments.units import NS_PER_MS
from pipeline.emojis import recognise
from pipeline.errors import SettingError
from spark.policies import NOTHING, POLICIES, cell_bounds, cumulative_bounds, represent

CELL_COLUMNS = ("window", "emoji_type", "count")
USERS = 1_000


def recorded(path: Path) -> pd.DataFrame:
    """Return a trace's `offset_ms` and `emoji_type` as they were typed; other columns are ignored.

    Raises SettingError as `trace.rows` and `trace.offsets` do.
    """
    frame = trace.rows(path, ("offset_ms", "emoji_type"))
    return pd.DataFrame({"offset_ms": trace.offsets(path, frame), "emoji_type": frame["emoji_type"]})


def recognised(emoji_types: pd.Series[str]) -> tuple[pd.Series[str], pd.DataFrame]:
    """Return each entry in its canonical spelling, null where it is not exactly one emoji, and a frame of the latter.

    The frame has `emoji_type, count`, the most frequent first: the entries that a replay must leave out.
    """
    spelled = emoji_types.map(recognise, na_action="ignore")
    refused = emoji_types[spelled.isna()].value_counts(dropna=False).rename_axis("emoji_type").reset_index(name="count")
    return spelled, refused


def windowed(offsets_ms: ArrayLike, emoji_types: Sequence[str] | pd.Series[str], trigger_s: float) -> pd.DataFrame:
    """Return the counts of reactions `offsets_ms` after the start, in windows of `trigger_s`: CELL_COLUMNS.

    Entries whose type is null are left out. A window without reactions has no row.
    """
    if not trigger_s > 0:
        raise SettingError(f"trigger_s is {trigger_s!r}: give more than 0 seconds")
    times = np.asarray(offsets_ms, dtype=np.float64)
    frame = pd.DataFrame({"window": (times // (trigger_s * 1000)).astype(np.int64), "emoji_type": emoji_types})
    counted = frame.groupby(["window", "emoji_type"], as_index=False).size()
    return counted.rename(columns={"size": "count"})[list(CELL_COLUMNS)]


def generated(rate_per_s: float, *, trigger_s: float, windows: int, seed: int) -> pd.DataFrame:
    """Return the counts of a generated load: Poisson arrivals over `windows` trigger intervals, Zipf popularity.

    Windows are on the trigger grid, as in the chain, and the load starts anywhere in it: the first and the last window
    are not full.
    """
    plan = poisson_plan(
        user_names(USERS),
        rate_per_s,
        0,
        trigger_s=trigger_s,
        warm_up_triggers=0,
        measured_triggers=windows,
        seed=seed,
    )
    return windowed(plan["t_intended_ns"] / NS_PER_MS, plan["emoji_type"], trigger_s)


def shown(counts: pd.DataFrame, *, policy: str, group_size: int, epoch: str) -> pd.DataFrame:
    """Return `counts` in order of window and type, with the `representatives` that `policy` shows."""
    ordered = counts.sort_values(["window", "emoji_type"], ignore_index=True)
    representatives: list[int] = []
    carried: Mapping[str, int] = NOTHING
    for window, cells in ordered.groupby("window", sort=False):
        counted = dict(zip(cells["emoji_type"], cells["count"].tolist(), strict=True))
        result = represent(policy, counted, group_size, epoch=epoch, window=int(str(window)), carried=carried)
        representatives += result.representatives.values()
        carried = result.carried
    return ordered.assign(representatives=np.array(representatives, dtype=np.int64))


def errors(counts: pd.DataFrame, *, group_size: int, epoch: str) -> pd.DataFrame:
    """Return a row per policy: the error of what it shows, and its bound. NaN if nothing was counted.

    With g = group_size, sums over all cells and c the count of one, r its representatives:

    - `per_cell` = Σ|c - g·r| / Σc, the error in single windows; `per_cell_bound` the most that its policy allows;
    - `in_total` = Σ over types |Σc - g·Σr| / Σc, the error of each type over all windows; `in_total_bound` likewise;
    - `bias` = g·Σr / Σc - 1: above 0 the swarm is bigger than the crowd;
    - `tv_distance`: total-variation distance between the types' shares counted and shown, 1 if nothing is shown;
    - `hidden_cells`: share of cells without a representative; `hidden_types`: share of types that are never shown;
    - `over_bound`: cells and types beyond the bound of their policy, 0 if its arithmetic is right;
    - `cells`, `types`, `counted` (Σc), `representatives` (Σr) and `mean_count` = Σc / cells.
    """
    rows = []
    for policy in POLICIES:
        cells = shown(counts, policy=policy, group_size=group_size, epoch=epoch)
        rows.append({"policy": policy, **_errors_of(cells, policy, group_size)})
    return pd.DataFrame(rows)


def _errors_of(cells: pd.DataFrame, policy: str, group_size: int) -> dict[str, Any]:
    low, high = cell_bounds(policy, group_size)
    signed = group_size * cells["representatives"] - cells["count"]
    types = cells.assign(signed=signed).groupby("emoji_type")[["count", "representatives", "signed"]].sum()
    occurs = cells.groupby("emoji_type").size().reindex(types.index)
    edges = np.array([cumulative_bounds(policy, group_size, int(n)) for n in occurs], dtype=np.float64).reshape(-1, 2)
    sums = types["signed"].to_numpy(dtype=np.int64)
    counted, stood = int(cells["count"].sum()), int(cells["representatives"].sum())
    whole = counted or np.nan
    off = ((signed < low) | (signed > high)).sum() + ((sums < edges[:, 0]) | (sums > edges[:, 1])).sum()
    return {
        "cells": len(cells),
        "types": len(types),
        "counted": counted,
        "representatives": stood,
        "mean_count": counted / len(cells) if len(cells) else np.nan,
        "per_cell": signed.abs().sum() / whole,
        "per_cell_bound": max(high, -low) * len(cells) / whole,
        "in_total": np.abs(sums).sum() / whole,
        "in_total_bound": np.abs(edges).max(axis=1, initial=0).sum() / whole,
        "bias": group_size * stood / whole - 1,
        "tv_distance": tv_distance(types["count"], types["representatives"]),
        "hidden_cells": (cells["representatives"] == 0).sum() / (len(cells) or np.nan),
        "hidden_types": (types["representatives"] == 0).sum() / (len(types) or np.nan),
        "over_bound": int(off),
    }


def sweep(loads: Mapping[float, pd.DataFrame], *, group_size: int, epoch: str) -> pd.DataFrame:
    """Return the `errors` of several loads, a row per load and policy, with the load's rate as `rate_per_s`."""
    parts = {rate: errors(counts, group_size=group_size, epoch=epoch) for rate, counts in loads.items()}
    frame = pd.concat([part.assign(rate_per_s=rate) for rate, part in parts.items()], ignore_index=True)
    return frame[["rate_per_s", *(name for name in frame.columns if name != "rate_per_s")]]


def course(counts: pd.DataFrame, *, group_size: int, epoch: str) -> pd.DataFrame:
    """Return `policy, window, ratio`: representatives up to each window, times the group size, over the counts."""
    parts = []
    for policy in POLICIES:
        cells = shown(counts, policy=policy, group_size=group_size, epoch=epoch)
        sums = cells.groupby("window")[["count", "representatives"]].sum().cumsum()
        ratio = group_size * sums["representatives"] / sums["count"]
        parts.append(pd.DataFrame({"policy": policy, "window": sums.index, "ratio": ratio.to_numpy()}))
    return pd.concat(parts, ignore_index=True)
