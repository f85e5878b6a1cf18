"""The levels of a campaign: how they are laid out and called, and each figure with its interval over runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from experiments.parameters import Parameters
from experiments.stats.bootstrap import FEWEST_RUNS, interval

Floats = NDArray[np.float64]
FEW_RUNS = FEWEST_RUNS
LOG_FROM = 10.0  # an axis whose values span more than this is logarithmic

FACTORS: dict[str, tuple[str, str]] = {
    "users": ("users", "{} users"),
    "rate_per_s": ("offered load, reactions/s", "{} reactions/s"),
    "clients": ("clients", "{} clients"),
    "trigger_s": ("trigger interval T, s", "T = {} s"),
    "flush_ms": ("flush interval, ms", "flush {} ms"),
    "flush_phase": ("flush phase", "{} phase"),
    "ack": ("acknowledgement", "{} answers"),
    "policy": ("policy", "policy {}"),
    "clusters": ("clusters", "{} clusters"),
    "subscribers": ("subscribers a cluster", "{} subscribers a cluster"),
    "arrivals": ("arrivals", "{} arrivals"),
    "activity": ("users' activity", "{} activity"),
    "popularity": ("emoji's popularity", "{} popularity"),
    "speed": ("speed of the trace", "{}× speed"),
    "ingest_workers": ("ingest workers", "{} ingest workers"),
    "group_size": ("group size", "groups of {}"),
}
"""Of a factor: what its axis is called, and how its value reads in a sentence."""


@dataclass(frozen=True)
class Layout:
    """How the levels are laid out.

    `factor` tells them apart and gives the axis `label`; it is empty where only several factors together do.
    `along` are the factors that go with it. `levels`: a row a level, in the order shown, with `level` (its
    name), `label` (under an axis), `words` (in a sentence), `x` (its place on the axis) and `planned` (runs).
    `main` is the level that the findings quote. `log` and `numeric` say what the axis is like.
    """

    factor: str
    along: tuple[str, ...]
    label: str
    numeric: bool
    log: bool
    levels: pd.DataFrame
    main: str

    def words(self, level: str) -> str:
        """Return how a level is called in a sentence."""
        return str(self.levels.set_index("level")["words"][level])


def layout(about: Mapping[str, Any]) -> Layout:
    """Return the layout of the campaign that `about` (campaign.json) tells of."""
    order = about["order"] or about["runs"]
    factors: dict[str, dict[str, Any]] = {row["level"]: row["factors"] for row in order}
    planned = pd.Series([row["level"] for row in order], dtype="object").value_counts()
    names = list(dict.fromkeys(name for of_level in factors.values() for name in of_level))
    values = {name: [of_level.get(name) for of_level in factors.values()] for name in names}
    varying = [name for name in names if len(set(map(str, values[name]))) > 1] or names[:1]
    first = varying[0] if varying else ""
    alone = bool(first) and len(set(map(str, values[first]))) == len(factors)
    numeric = alone and all(_is_number(value) for value in values[first])
    if numeric:
        sequence = sorted(factors, key=lambda level: float(factors[level][first]))
    else:
        sequence = sorted(factors, key=lambda level: _place(factors[level], about["design"].get("levels") or []))
    shown = [first] if alone else varying
    levels = pd.DataFrame(
        {
            "level": sequence,
            "label": [" · ".join(plain(factors[level].get(name)) for name in shown) for level in sequence],
            "words": [", ".join(phrase(name, factors[level].get(name)) for name in shown) for level in sequence],
            "x": [float(factors[level][first]) if numeric else float(i) for i, level in enumerate(sequence)],
            "planned": [int(planned[level]) for level in sequence],
        }
    )
    x = levels["x"].to_numpy(dtype=np.float64)
    return Layout(
        factor=first if alone else "",
        along=tuple(varying[1:]) if alone else (),
        label=" · ".join(FACTORS.get(name, (name.replace("_", " "), ""))[0] for name in shown),
        numeric=numeric,
        log=bool(numeric and len(x) and x.min() > 0 and x.max() / x.min() > LOG_FROM),
        levels=levels,
        main=_highest_pass(about, levels) if about["design"].get("search") else _main(levels, factors),
    )


def _place(factors: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> int:
    bare = [{name: value for name, value in level.items() if name != "blocks"} for level in listed]
    return next((i for i, level in enumerate(bare) if level == dict(factors)), len(bare))


def _highest_pass(about: Mapping[str, Any], levels: pd.DataFrame) -> str:
    """The highest load of a search at which every valid run passed; the lowest load where none did."""
    failed = {run["level"] for run in about["runs"] if run["valid"] and not run.get("passed")}
    passed = {run["level"] for run in about["runs"] if run["valid"] and run.get("passed")} - failed
    held = levels.loc[levels["level"].isin(passed), "level"]
    return str(held.iloc[-1] if len(held) else levels["level"].iloc[0]) if len(levels) else ""


def _main(levels: pd.DataFrame, factors: Mapping[str, Mapping[str, Any]]) -> str:
    """The level with the most repetitions; of several the one nearest to how the chain runs by default."""
    if levels.empty:
        return ""
    most = levels.loc[levels["planned"] == levels["planned"].max(), "level"]
    default = Parameters()
    return str(max(most, key=lambda level: sum(getattr(default, n, None) == v for n, v in factors[level].items())))


def plain(value: Any) -> str:
    """Return a factor's value as an axis has it: digits in groups, no needless decimals, text as it is."""
    if isinstance(value, bool) or not _is_number(value):
        return str(value)
    return f"{value:,.10g}"


def phrase(factor: str, value: Any) -> str:
    """Return a factor's value as it reads in a sentence: "100 users", "flush 500 ms"."""
    text = FACTORS.get(factor, ("", f"{factor} {{}}"))[1].format(plain(value)).replace(" ", "\u00a0")
    return text.removesuffix("s") if value == 1 and text.endswith(("users", "clients", "clusters", "workers")) else text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def derived(runs: pd.DataFrame) -> pd.DataFrame:
    """Return campaign_data.runs with the figures that only a campaign looks at.

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
    """Return the valid runs: the only ones that enter a summary."""
    return runs[runs["valid"].astype(bool)]


def estimates(valid: pd.DataFrame, levels: pd.DataFrame, keys: Iterable[str]) -> pd.DataFrame:
    """Return a row per level and figure: `level, label, key, runs, median, low, high, least, most`.

    `runs` counts the valid runs in which the figure was measured; the interval is bootstrapped over them and
    null for fewer than FEW_RUNS.
    """
    rows = []
    for level, label in zip(levels["level"], levels["label"], strict=True):
        for key in keys:
            values = of_level(valid, level, key)
            found = interval(values.tolist())
            rows.append((level, label, key, found.n, found.estimate, found.low, found.high, *_range(values)))
    names = ["level", "label", "key", "runs", "median", "low", "high", "least", "most"]
    return pd.DataFrame(rows, columns=names)


def of_level(valid: pd.DataFrame, level: str, key: str) -> Floats:
    """Return a figure's values in the valid runs of a level, those that were measured."""
    if key not in valid.columns:
        return np.empty(0)
    values = valid.loc[valid["level"] == level, key].to_numpy(dtype=np.float64)
    return np.asarray(values[~np.isnan(values)])


def _range(values: Floats) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (math.nan, math.nan)


@dataclass(frozen=True)
class Trend:
    """How a figure goes with the axis: Theil-Sen slope over the runs, per tenfold (log axis) or per unit.

    `slope`, `low`, `high`: with its 95 % interval, NaN where there is no axis, there are too few runs, or some are
    infinite (never arrived): those of the levels `infinite`, without which a slope would tell of the others only.
    `first`, `last`: the medians at either end.
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
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def trend(valid: pd.DataFrame, plan: Layout, key: str) -> Trend:
    """Return the trend of a figure along the axis, over every valid run in which it was measured."""
    points = [
        (math.log10(x) if plan.log else x, value)
        for level, x in zip(plan.levels["level"], plan.levels["x"], strict=True)
        for value in of_level(valid, level, key)
    ]
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    if not plan.numeric or len(np.unique(x)) < 2 or len(x) < 2 * FEW_RUNS:
        return Trend(key)
    infinite = tuple(level for level in plan.levels["level"] if np.isinf(of_level(valid, level, key)).any())
    if infinite:
        return Trend(key, infinite=infinite)
    # Runs that are mostly alike tie so often that the slope's variance has no value: then there is no interval.
    with np.errstate(invalid="ignore"):
        slope, _, low, high = stats.theilslopes(y, x, 0.95)
    ends = float(np.median(y[x == x.min()])), float(np.median(y[x == x.max()]))
    return Trend(key, float(slope), float(low), float(high), *ends)
