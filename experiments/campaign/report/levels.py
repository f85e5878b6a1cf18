"""The levels of a campaign: how they are laid out and named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.campaign.campaign_file import State
from experiments.parameters import Parameters
from experiments.report.format import NBSP, grouped

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
    "subscribers": ("subscribers per cluster", "{} subscribers per cluster"),
    "arrivals": ("arrivals", "{} arrivals"),
    "activity": ("users' activity", "{} activity"),
    "popularity": ("popularity of emoji", "{} popularity"),
    "speed": ("speed of the trace", "{}× speed"),
    "ingest_workers": ("ingest workers", "{} ingest workers"),
    "group_size": ("group size", "groups of {}"),
}
"""For each factor: the label of its axis, and how its value reads in a sentence."""


@dataclass(frozen=True)
class Layout:
    """How the levels are laid out.

    `factor` is the one that tells all levels apart; it is empty where only several factors together do. `along` are
    the factors that change with it, `label` names the axis. `levels` has a row per level, in the order shown: `level`
    (its name), `label` (under an axis), `words` (in a sentence), `x` (its position) and `planned` (runs). The findings
    quote the level `main`. `numeric` and `log` describe the axis.
    """

    factor: str
    along: tuple[str, ...]
    label: str
    numeric: bool
    log: bool
    levels: pd.DataFrame
    main: str

    def words(self, level: str) -> str:
        """Return the name of a level in a sentence."""
        return str(self.levels.set_index("level")["words"][level])


def layout(state: State) -> Layout:
    """Return the layout of a campaign's levels."""
    order = state.order or state.runs
    factors: dict[str, dict[str, Any]] = {run.level: run.factors for run in order}
    planned = pd.Series([run.level for run in order], dtype="object").value_counts()
    names = list(dict.fromkeys(name for of_level in factors.values() for name in of_level))
    values = {name: [of_level.get(name) for of_level in factors.values()] for name in names}
    varying = [name for name in names if len(set(map(str, values[name]))) > 1] or names[:1]
    first = varying[0] if varying else ""
    alone = bool(first) and len(set(map(str, values[first]))) == len(factors)
    numeric = alone and all(_is_number(value) for value in values[first])
    if numeric:
        sequence = sorted(factors, key=lambda level: float(factors[level][first]))
    else:
        sequence = sorted(factors, key=lambda level: _place(factors[level], state.design.levels))
    shown = [first] if alone else varying
    levels = pd.DataFrame(
        {
            "level": sequence,
            "label": [" · ".join(axis_text(factors[level].get(name)) for name in shown) for level in sequence],
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
        main=_below_first_fail(state, levels) if state.searches else _main(levels, factors),
    )


def _place(factors: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> int:
    bare = [{name: value for name, value in level.items() if name != "blocks"} for level in listed]
    return next((i for i, level in enumerate(bare) if level == dict(factors)), len(bare))


def _below_first_fail(state: State, levels: pd.DataFrame) -> str:
    """Return the highest load of a search below every load that failed; the lowest load where there is none.

    A load that passed above a fail may have passed by chance.
    """
    failed = {run.level for run in state.runs if run.valid and not run.passed}
    passed = {run.level for run in state.runs if run.valid and run.passed}
    held = ""
    for level in levels["level"]:  # in the order of the load
        if level in failed:
            break
        held = str(level) if level in passed else held
    return held or (str(levels["level"].iloc[0]) if len(levels) else "")


def _main(levels: pd.DataFrame, factors: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the level with the most repetitions; of several, the one closest to the default parameters."""
    if levels.empty:
        return ""
    most = levels.loc[levels["planned"] == levels["planned"].max(), "level"]
    default = Parameters()
    return str(max(most, key=lambda level: sum(getattr(default, n, None) == v for n, v in factors[level].items())))


def axis_text(value: Any) -> str:
    """Return a factor's value as an axis has it: digits in groups, no needless decimals, text as it is."""
    return grouped(value) if _is_number(value) else str(value)


def phrase(factor: str, value: Any) -> str:
    """Return a factor's value as it reads in a sentence: "100 users", "flush 500 ms"."""
    text = FACTORS.get(factor, ("", f"{factor} {{}}"))[1].format(axis_text(value)).replace(" ", NBSP)
    return text.removesuffix("s") if value == 1 and text.endswith(("users", "clients", "clusters", "workers")) else text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
