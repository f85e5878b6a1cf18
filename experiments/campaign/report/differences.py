"""Two campaigns level by level: which differences their runs support, and which they do not.

A difference is supported if two conditions hold: the 95 % bootstrap interval of the difference of the medians over runs
excludes zero, and the comparison's p-value stays below 5 % when corrected for the number of comparisons (Holm, 1979:
the chance of even one false finding among all of them is at most 5 %). If only the first holds, it is a hint. A figure
that is the same in every run of both is not tested and not counted (Tarone, 1990). p is Welch's, on the runs; where
runs are infinite (never arrived) or do not vary, it is the rank sum's (Mann and Whitney), which is never below 5 % with
few runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from experiments.campaign import campaign_file
from experiments.campaign.design import Design
from experiments.campaign.report import read
from experiments.campaign.report.estimates import believed, derived, of_level
from experiments.campaign.report.levels import Layout, layout
from experiments.campaign.report.provenance import Facts, facts
from experiments.stats.bootstrap import FEWEST_RUNS, difference

FIGURES: dict[str, tuple[str, str]] = {
    "e2e_excess_p50_s": ("median latency above the floor", "s"),
    "e2e_excess_p99_s": ("p99 latency above the floor", "s"),
    "batch_p95_s": ("p95 of the micro-batch time", "s"),
    "accepted_per_s": ("throughput", "reactions/s"),
    "cores_used": ("processor use", "cores"),
    "representation_error": ("representation error", "share"),
    "tv_distance": ("distance of the mix shown", "share"),
    "faults": ("faults per run", ""),
}
"""What is compared: the figure's key, its name and its unit. `cores_used` sums the stages and the instrument, `faults`
is that of estimates.derived."""
ALPHA = 0.05
VERDICTS = ("supported", "hint", "not supported", "alike", "too few runs")
COLUMNS = [
    *(
        "level",
        "words",
        "key",
        "name",
        "unit",
        "runs_a",
        "runs_b",
        "a",
        "b",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
    ),
    "verdict",
]


def compare(a_dir: Path, b_dir: Path) -> pd.DataFrame:
    """Return a row per level that both campaigns have and figure that both measured: COLUMNS.

    `a` and `b` are medians over valid runs, `difference` is b - a with its interval `low` to `high`; `p_holm` is
    `p` corrected for all rows that have one. `verdict` is one of VERDICTS. Raises RunFileError naming the file that is
    missing or damaged.
    """
    (plan, first), (_, second) = _read(a_dir), _read(b_dir)
    rows = []
    for level in plan.levels["level"]:
        for key, (name, unit) in FIGURES.items():
            a, b = of_level(first, level, key), of_level(second, level, key)
            if not len(a) or not len(b):
                continue
            found = difference(a.tolist(), b.tolist())
            medians = float(np.median(a)), float(np.median(b))
            p = p_value(a, b) if found.n >= FEWEST_RUNS else math.nan
            rows.append((level, plan.words(level), key, name, unit, len(a), len(b), *medians, found.estimate, found.low,
                         found.high, p))  # fmt: skip
    table = pd.DataFrame(rows, columns=COLUMNS[:-2])
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table[COLUMNS]


def p_value(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return how likely runs as far apart as these are if both campaigns are the same; NaN if all are equal."""
    if len(np.unique(np.concatenate([a, b]))) == 1:
        return math.nan
    if np.isfinite(a).all() and np.isfinite(b).all() and (np.ptp(a) > 0 or np.ptp(b) > 0):
        with warnings.catch_warnings():
            # scipy warns about a side whose runs are all equal: its variance is 0, and that of the other side decides.
            warnings.simplefilter("ignore", RuntimeWarning)
            return float(stats.ttest_ind(a, b, equal_var=False).pvalue)
    return float(stats.mannwhitneyu(a, b, method="exact").pvalue)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected for their number (Holm's step-down); NaN stays NaN and is not counted."""
    result = np.full(len(p), math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return result


def context(a_dir: Path, b_dir: Path) -> list[str]:
    """Return in sentences what else differs between the two: levels, designs, commits and machines."""
    a, b = campaign_file.read(a_dir), campaign_file.read(b_dir)
    levels_a, levels_b = layout(a), layout(b)
    sentences = []
    # The loads of two searches are their probes, which need not be the same.
    by_level = not (a.searches and b.searches)
    for which, own, other in (("A", levels_a, levels_b), ("B", levels_b, levels_a)) if by_level else ():
        only = [own.words(level) for level in own.levels["level"] if level not in set(other.levels["level"])]
        if only:
            sentences.append(f"Only {which} has the level{'s' if len(only) > 1 else ''} {'; '.join(only)}.")
    for which, state in (("A", a), ("B", b)):
        if by_level and not state.ended:
            sentences.append(f"{which} is not finished: {len(state.runs)} of {len(state.order)} runs.")
        bad = sum(not run.valid for run in state.runs)
        if bad:
            sentences.append(
                f"{bad} of {which}'s {len(state.runs)} runs {'is' if bad == 1 else 'are'} invalid and left out."
            )
    sentences += _designs(a.design, b.design)
    return sentences + _made(*(facts(directory, read.runs(directory)) for directory in (a_dir, b_dir)))


def _designs(a: Design, b: Design) -> list[str]:
    one, two = msgspec.to_builtins(a), msgspec.to_builtins(b)
    changed = []
    for name in sorted({*one, *two} - {"name", "about", "levels", "seed", "blocks", "parameters"}):
        if one.get(name) != two.get(name):
            changed.append(f"{name} {one.get(name)} and {two.get(name)}")
    for name in sorted({*a.parameters, *b.parameters}):
        if a.parameters.get(name) != b.parameters.get(name):
            changed.append(f"{name} {a.parameters.get(name, 'default')} and {b.parameters.get(name, 'default')}")
    return [f"The designs differ (A and B): {'; '.join(changed)}."] if changed else []


def _made(one: Facts, two: Facts) -> list[str]:
    sentences = []
    if set(one.commits) != set(two.commits):
        names = [", ".join(commit[:12] for commit in each.commits) or "none" for each in (one, two)]
        sentences.append(f"They are of different commits: A {names[0]}, B {names[1]}.")
    for which, each in (("A", one), ("B", two)):
        if each.dirty:
            sentences.append(f"{each.dirty} of {which}'s {each.runs} runs were made with uncommitted changes.")
    if set(one.machines) != set(two.machines):
        names = ["; ".join(each.machines) or "none" for each in (one, two)]
        sentences.append(
            f"They are of different machines, which alone can explain any difference: A {names[0]}, B {names[1]}."
        )
    changed = [
        f"{name} {one.versions.get(name, 'none')} and {two.versions.get(name, 'none')}"
        for name in sorted({*one.versions, *two.versions})
        if one.versions.get(name) != two.versions.get(name)
    ]
    return sentences + ([f"Versions differ (A and B): {'; '.join(changed)}."] if changed else [])


def _read(directory: Path) -> tuple[Layout, pd.DataFrame]:
    plan = layout(campaign_file.read(directory))
    valid = believed(derived(read.runs(directory)))
    # The machine's total and the share of other programs belong to no stage.
    apart = ("cpu_share_machine", "cpu_share_others")
    shares = [name for name in valid.columns if str(name).startswith("cpu_share_") and name not in apart]
    return plan, valid.assign(cores_used=valid[shares].sum(axis=1, min_count=1)) if shares else valid


def _verdict(row: Mapping[Any, Any]) -> str:
    if min(row["runs_a"], row["runs_b"]) < FEWEST_RUNS:
        return "too few runs"
    if math.isnan(row["p"]):
        return "alike"
    if row["low"] > 0 or row["high"] < 0:
        return "supported" if row["p_holm"] < ALPHA else "hint"
    return "not supported"
