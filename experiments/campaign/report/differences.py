"""Two campaigns level by level, paired by block: which differences their runs support, and which they do not.

The effect is that of stats.paired: a ratio where it has a meaning. A difference is supported if two conditions hold:
its 95 % interval leaves "no effect" out, and its p-value stays below 5 % when corrected for the number of comparisons
(Holm, 1979: the chance of even one false finding among all of them is at most 5 %). If only the first holds, it is a
hint. Beside every other stands the smallest effect that as many blocks would have supported in 80 % of cases. A figure
that is the same in every block is not tested and not counted (Tarone, 1990).
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from experiments.analysis.usage import NO_STAGES
from experiments.campaign import campaign_file
from experiments.campaign.design import Design
from experiments.campaign.report import read
from experiments.campaign.report.estimates import believed, derived, in_blocks, windows
from experiments.campaign.report.levels import Layout, layout
from experiments.campaign.report.provenance import Facts, facts
from experiments.report.format import count, left_out
from experiments.stats.paired import ALPHA, FEWEST_BLOCKS, Effect, detectable, effect, holm
from experiments.stats.percentiles import inferable

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
VERDICTS = ("supported", "hint", "not supported", "alike", "too few blocks", "too few windows")
COLUMNS = [
    *("level", "words", "key", "name", "unit", "blocks", "a", "b"),
    *("ratio", "ratio_low", "ratio_high", "difference", "low", "high"),
    *("p", "p_holm", "detectable", "verdict"),
]


APART = (
    "The two campaigns were made one after the other: a change of the machine between them would look like a "
    "difference. To compare two versions or settings block by block in turn: emostream duel A B"
)


def compare(a_dir: Path, b_dir: Path) -> pd.DataFrame:
    """Return a row per level that both campaigns have and figure that both measured: COLUMNS, as `judged` has them.

    Raises RunFileError naming the file that is missing or damaged.
    """
    (plan, first), (_, second) = _read(a_dir), _read(b_dir)
    return judged(plan.levels, first, second)


def judged(levels: pd.DataFrame, first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return a row per level and figure that both sides measured in the same blocks: COLUMNS.

    `levels` has `level` and `words`; `first` and `second` are valid runs with `level, block` and the figures.
    `a` and `b` are medians over the blocks that both have. `ratio` (b / a) is null where a value is zero, negative or
    infinite, `difference` (b - a) where one is infinite; each has its 95 % interval, null with fewer than
    paired.FEWEST_BLOCKS blocks, and of a percentile beyond which a side has too few windows (stats.percentiles).
    `p_holm` is `p` corrected for all rows that have one. `detectable` is a ratio above 1 if there is a `ratio`, else a
    difference. `verdict` is one of VERDICTS.
    """
    rows, effects, sparse = [], [], []
    for level, words in zip(levels["level"], levels["words"], strict=True):
        for key, (name, unit) in FIGURES.items():
            a, b = in_blocks(first, level, second, level, key)
            if not len(a):
                continue
            found, plain = effect(a, b), effect(a, b, difference=True)
            few = not inferable(key, min(windows(side, level, key) for side in (first, second)))
            few &= len(a) >= FEWEST_BLOCKS
            if few:
                found, plain = _not_inferred(found), _not_inferred(plain)
            ratio = found if found.kind == "ratio" else _NO_EFFECT
            medians = float(np.median(a)), float(np.median(b))
            rows.append((level, words, key, name, unit, len(a), *medians, ratio.estimate, ratio.low, ratio.high,
                         plain.estimate, plain.low, plain.high, found.p))  # fmt: skip
            effects.append(found)
            sparse.append(few)
    table = pd.DataFrame(rows, columns=COLUMNS[:-3])
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    tested = int(table["p"].notna().sum())
    table["detectable"] = [detectable(found, tested) for found in effects]
    judgements = zip(effects, table["p_holm"], sparse, strict=True)
    table["verdict"] = ["too few windows" if few else _verdict(found, p) for found, p, few in judgements]
    return table[COLUMNS]


def _not_inferred(found: Effect) -> Effect:
    """Return an effect of which nothing is inferred."""
    return dataclasses.replace(found, low=math.nan, high=math.nan, p=math.nan, sd=math.nan)


_NO_EFFECT = Effect("ratio", 0, math.nan, math.nan, math.nan, math.nan, math.nan)


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
        unsteady = sum(run.unsteady for run in state.runs)
        why = left_out(sum(not run.valid for run in state.runs) - unsteady, unsteady)
        if why:
            sentences.append(f"Of {which}'s {count(len(state.runs), 'run')} {why}, and left out.")
    if by_level:
        sentences.append(APART)
    sentences += _designs(a.design, b.design)
    return sentences + _made(*(facts(directory, read.runs(directory)) for directory in (a_dir, b_dir)))


def _designs(a: Design, b: Design) -> list[str]:
    one, two = msgspec.to_builtins(a), msgspec.to_builtins(b)
    changed = []
    for name in sorted({*one, *two} - {"name", "about", "levels", "seed", "blocks", "parameters"}):
        if one.get(name) != two.get(name):
            changed.append(f"{name} {_in_words(one.get(name))} and {_in_words(two.get(name))}")
    for name in sorted({*a.parameters, *b.parameters}):
        if a.parameters.get(name) != b.parameters.get(name):
            changed.append(f"{name} {a.parameters.get(name, 'default')} and {b.parameters.get(name, 'default')}")
    return [f"The designs differ (A and B): {'; '.join(changed)}."] if changed else []


def _in_words(value: Any) -> str:
    """Return a value of a design as text, such as "none", or "factor users, least 5"."""
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(each)}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_in_words, value)) if isinstance(value, list) else str(value)


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
    state = campaign_file.read(directory).own
    return layout(state), with_cores(believed(read.listed(derived(read.runs(directory)), state)))


def with_cores(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with `cores_used`, the sum over the stages and the instrument."""
    apart = {f"cpu_share_{name}" for name in NO_STAGES}
    shares = [name for name in runs.columns if str(name).startswith("cpu_share_") and name not in apart]
    return runs.assign(cores_used=runs[shares].sum(axis=1, min_count=1)) if shares else runs


def _verdict(found: Effect, p_holm: float) -> str:
    if found.blocks < FEWEST_BLOCKS:
        return "too few blocks"
    if math.isnan(found.p):
        return "alike"
    if found.excludes_none:
        return "supported" if p_holm < ALPHA else "hint"
    return "not supported"
