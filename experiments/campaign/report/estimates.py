"""Each figure of a campaign over its runs: by level with its interval, and its trend along the axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from experiments.campaign.report.levels import Layout
from experiments.stats.bootstrap import FEWEST_RUNS, interval
from experiments.stats.percentiles import inferable

Floats = NDArray[np.float64]


def derived(runs: pd.DataFrame) -> pd.DataFrame:
    """Return read.runs with the figures that only a campaign has.

    `accepted_share`: accepted of offered reactions. `faults`: reactions lost, duplicated or altered, counts
    that differ from the recount, and deliveries missing or doubled.
    """
    if runs.empty:
        return runs
    if {"accepted_per_s", "offered_per_s"} <= set(runs.columns):
        share = runs["accepted_per_s"] / runs["offered_per_s"]
    else:
        share = runs["accepted"] / runs["planned"]
    parts = ["lost", "duplicated", "altered", "deliveries_missing", "deliveries_duplicate"]
    return runs.assign(
        accepted_share=share, faults=runs[parts].sum(axis=1) + runs["oracle_cells"] - runs["oracle_equal"]
    )


def believed(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the valid runs, the only ones that enter a summary."""
    return runs[runs["valid"].astype(bool)]


def estimates(valid: pd.DataFrame, levels: pd.DataFrame, keys: Iterable[str]) -> pd.DataFrame:
    """Return a row per level and figure: `level, label, key, runs, median, low, high, least, most`.

    `runs` counts the valid runs in which the figure was measured; the interval is bootstrapped over them. It is null
    for fewer than FEWEST_RUNS, and for a percentile beyond which they have too few windows (stats.percentiles).
    """
    rows = []
    for level, label in zip(levels["level"], levels["label"], strict=True):
        for key in keys:
            values = of_level(valid, level, key)
            found = interval(values.tolist())
            ends = (found.low, found.high) if inferable(key, windows(valid, level, key)) else (math.nan, math.nan)
            rows.append((level, label, key, found.n, found.estimate, *ends, *_range(values)))
    names = ["level", "label", "key", "runs", "median", "low", "high", "least", "most"]
    return pd.DataFrame(rows, columns=names)


def windows(valid: pd.DataFrame, level: str, key: str) -> float:
    """Return how many windows the valid runs of a level measured that measured a figure; inf if it is not known."""
    if not {key, "windows_measured"} <= set(valid.columns):
        return math.inf
    measured = (valid["level"] == level) & valid[key].notna()
    return float(valid.loc[measured, "windows_measured"].sum())


def of_level(valid: pd.DataFrame, level: str, key: str) -> Floats:
    """Return the measured values of a figure in the valid runs of a level."""
    if key not in valid.columns:
        return np.empty(0)
    values = valid.loc[valid["level"] == level, key].to_numpy(dtype=np.float64)
    return np.asarray(values[~np.isnan(values)])


def in_blocks(a: pd.DataFrame, a_level: str, b: pd.DataFrame, b_level: str, key: str) -> tuple[Floats, Floats]:
    """Return the values of a figure at a level of `a` and one of `b`, block by block: pairs of valid runs.

    A block in which one of the two was not measured is left out.
    """
    sides = [
        rows[rows["level"] == level].drop_duplicates("block").set_index("block")[key].astype("float64").dropna()
        if key in rows.columns
        else pd.Series(dtype="float64")
        for rows, level in ((a, a_level), (b, b_level))
    ]
    blocks = sides[0].index.intersection(sides[1].index)
    first, second = (np.asarray(side.loc[blocks], dtype=np.float64) for side in sides)
    return first, second


def _range(values: Floats) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (math.nan, math.nan)


@dataclass(frozen=True)
class Trend:
    """The trend of a figure along the axis: Theil-Sen slope over the runs, per tenfold (log axis) or per unit.

    `slope`, `low`, `high` are the slope and its 95 % interval. They are NaN without an axis, with too few runs or too
    few windows beyond a percentile, or if the figure is infinite (never arrived) in runs of the levels `infinite`: a
    slope would describe the others only. `first`, `last`: the medians at both ends.
    """

    key: str
    slope: float = math.nan
    low: float = math.nan
    high: float = math.nan
    first: float = math.nan
    last: float = math.nan
    infinite: tuple[str, ...] = ()

    @property
    def supported(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def trend(valid: pd.DataFrame, plan: Layout, key: str) -> Trend:
    """Return the trend of a figure along the axis, over every valid run in which it was measured."""
    points = [
        (math.log10(x) if plan.log else x, value)
        for level, x in zip(plan.levels["level"], plan.levels["x"], strict=True)
        for value in of_level(valid, level, key)
    ]
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    if not plan.numeric or len(np.unique(x)) < 2 or len(x) < 2 * FEWEST_RUNS:
        return Trend(key)
    infinite = tuple(level for level in plan.levels["level"] if np.isinf(of_level(valid, level, key)).any())
    if infinite:
        return Trend(key, infinite=infinite)
    if not inferable(key, sum(windows(valid, level, key) for level in plan.levels["level"])):
        return Trend(key)
    # With many equal runs the variance of the slope is undefined: then there is no interval.
    with np.errstate(invalid="ignore"):
        slope, _, low, high = stats.theilslopes(y, x, 0.95)
    ends = float(np.median(y[x == x.min()])), float(np.median(y[x == x.max()]))
    return Trend(key, float(slope), float(low), float(high), *ends)
