"""How much a figure depends on each stage: elasticities from interventions, and which stage they allow to name.

In each block one run is as it is, and in one run per stage that stage's CPU time is dilated by 1 / (1 - share). The
elasticity of a figure is its relative change per relative change of the stage's CPU time, by logarithms:
ln(slowed / as it is) / ln(1 / (1 - share)). An elasticity of 2 says that the figure grows by about 2 % for each
per cent that the stage gets slower. Its interval is Student's t over blocks.

A stage is named if its interval lies above zero and above the interval of every other stage. How rarely that names a
stage that is not the one is known from simulation: see `tests/experiments/stats/test_elasticity.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from experiments.stats.paired import CONFIDENCE, FEWEST_BLOCKS, Effect, detectable, effect
from pipeline.errors import SettingError


@dataclass(frozen=True)
class Elasticity:
    """The elasticity of a figure in a stage over `blocks` blocks: `estimate`, and its 95 % interval `low` to `high`.

    `ratio` is what the intervention did to the figure, slowed / as it is, with its interval and p-value; `share` is the
    mean of those reached. `detectable` is the smallest elasticity that as many blocks with this scatter would have told
    from zero in 80 % of cases. What is not known is NaN: with fewer than paired.FEWEST_BLOCKS blocks the interval,
    with a figure that is infinite, zero or negative the estimate too. `infinite`: the blocks that have an infinite one.
    """

    stage: str
    blocks: int
    share: float
    estimate: float
    low: float
    high: float
    detectable: float
    ratio: Effect
    infinite: int

    @property
    def has_interval(self) -> bool:
        """Whether the stage can be compared with others."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def elasticity(stage: str, base: Sequence[float], slowed: Sequence[float], shares: Sequence[float]) -> Elasticity:
    """Return the elasticity from each block's figure as it is (`base`) and `slowed`, and the share that was reached.

    Blocks with a NaN figure are left out. Raises SettingError for a share outside (0, 1), ValueError if the numbers
    of values differ.
    """
    for share in shares:
        if not 0 < share < 1:
            raise SettingError(f"the share of {stage} is {share:g}: give more than 0 and less than 1")
    x, y, f = (np.asarray(values, dtype=np.float64) for values in (base, slowed, shares))
    if len(f) != len(y):
        raise ValueError(f"slowed has {len(y)} values and shares has {len(f)}: give one of each per block")
    ratio = effect(x, y)
    known = ~(np.isnan(x) | np.isnan(y))
    infinite = int((np.isinf(x) | np.isinf(y)).sum())
    share = float(f[known].mean()) if known.any() else math.nan
    if ratio.kind != "ratio":
        return Elasticity(stage, int(known.sum()), share, math.nan, math.nan, math.nan, math.nan, ratio, infinite)
    each = np.log(y[known] / x[known]) / -np.log1p(-f[known])
    found = effect(np.zeros(len(each)), each, difference=True)
    return Elasticity(
        stage, found.blocks, share, found.estimate, found.low, found.high, detectable(found), ratio, infinite
    )


@dataclass(frozen=True)
class Named:
    """The stage that the interventions confirm, or None; `reason` says why, in words that a sentence can end with."""

    stage: str | None
    reason: str


def named(found: Sequence[Elasticity]) -> Named:
    """Return the stage whose interval lies above zero and above that of every other, if there is one."""
    if len(found) < 2:
        return Named(None, "fewer than two stages were slowed")
    for one in found:
        if not one.has_interval:
            if one.infinite:
                why = f"with {one.stage} slowed, half of the reactions or more never arrived in {one.infinite} blocks"
            else:
                why = f"{one.stage} has {one.blocks} complete blocks, and an interval needs {FEWEST_BLOCKS}"
            return Named(None, why)
    first, second = sorted(found, key=lambda one: one.estimate, reverse=True)[:2]
    if first.low <= 0:
        return Named(None, "no stage's interval lies above zero")
    highest = max((one for one in found if one is not first), key=lambda one: one.high)
    if first.low <= highest.high:
        return Named(None, f"the intervals of {first.stage} and {highest.stage} overlap")
    return Named(first.stage, f"its interval lies above zero and above that of {second.stage}, the next")


@dataclass(frozen=True)
class Demand:
    """CPU seconds per reaction of a stage: the mean over `runs` runs, and its 95 % interval, NaN with fewer than six.

    `bound_per_s` is the load at which its `processes`, each of which can use one core, would be busy all of the time;
    inf where the number is not limited (None).
    """

    stage: str
    runs: int
    cpu_s: float
    low: float
    high: float
    processes: int | None
    bound_per_s: float


def demand(stage: str, cores: Sequence[float], accepted_per_s: Sequence[float], processes: int | None) -> Demand:
    """Return the service demand from the mean `cores` that a stage used in each run, and the reactions accepted there.

    By the utilization law (Denning and Buzen, 1978) it is cores / throughput. Runs with a NaN, or that accepted
    nothing, are left out.
    """
    used, rate = np.asarray(cores, dtype=np.float64), np.asarray(accepted_per_s, dtype=np.float64)
    known = np.isfinite(used) & (rate > 0)
    each = used[known] / rate[known]
    n = len(each)
    if not n:
        return Demand(stage, 0, math.nan, math.nan, math.nan, processes, math.nan)
    mean, half = float(each.mean()), math.nan
    if n >= FEWEST_BLOCKS:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * float(each.std(ddof=1)) / math.sqrt(n)
    bound = math.inf if processes is None or mean <= 0 else processes / mean
    return Demand(stage, n, mean, mean - half, mean + half, processes, bound)


def bound_per_s(demands: Mapping[str, float], cores: float) -> float:
    """Return the load at which all cores would be busy: cores / the sum of the demands (CPU seconds per reaction)."""
    total = sum(value for value in demands.values() if not math.isnan(value))
    return cores / total if total > 0 else math.nan
