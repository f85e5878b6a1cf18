"""A and B compared block by block: both ran in each block, on the same reactions, so that what they share cancels.

The effect is the ratio B / A, by Student's t on the logarithms of the blocks' ratios. Where a figure is zero or
negative somewhere, a ratio has no meaning: there the effect is the difference B - A, by t on the blocks' differences.
Where a figure is infinite (never arrived), only the signs count (the exact sign test), and there is no interval. Below
FEWEST_BLOCKS blocks no interval and no p-value is stated, only the values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

FEWEST_BLOCKS = 6
"""With six blocks the sign test can reach 5 % (2 / 2**6 = 3.1 %); with five it cannot, whatever is measured."""
CONFIDENCE = 0.95
ALPHA = 0.05
POWER = 0.8
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """What B did to a figure, in `blocks` pairs: `estimate`, and its 95 % interval `low` to `high`.

    `kind`: "ratio" B / A, "difference" B - A, or "sign" (estimate and interval are NaN). `p` is NaN with too few
    blocks, or if A and B are equal in every block. `sd` is the standard deviation over blocks of what was averaged.
    """

    kind: Literal["ratio", "difference", "sign"]
    blocks: int
    estimate: float
    low: float
    high: float
    p: float
    sd: float

    @property
    def none(self) -> float:
        """The value of no effect."""
        return 1.0 if self.kind == "ratio" else 0.0

    @property
    def excludes_none(self) -> bool:
        """Whether the interval leaves the value of no effect out; for signs, whether p is below ALPHA."""
        if self.kind == "sign":
            return self.p < ALPHA
        return self.low > self.none or self.high < self.none


def effect(a: Sequence[float] | Floats, b: Sequence[float] | Floats, *, difference: bool = False) -> Effect:
    """Return the effect from the values of A and B, a pair per block; pairs with a NaN are left out.

    With `difference` it is B - A even where the ratio has a meaning. Raises ValueError if the numbers of values differ.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(x) != len(y):
        raise ValueError(f"a has {len(x)} values and b has {len(y)}: give one of each per block")
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    n, equal = len(x), bool((x == y).all())
    if not n:
        return Effect("difference", 0, math.nan, math.nan, math.nan, math.nan, math.nan)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        p = math.nan if n < FEWEST_BLOCKS or equal else _sign_test(x, y)
        return Effect("sign", n, math.nan, math.nan, math.nan, p, math.nan)
    ratios = not difference and bool((x > 0).all() and (y > 0).all())
    changes = np.log(y / x) if ratios else y - x
    back = math.exp if ratios else float
    kind: Literal["ratio", "difference"] = "ratio" if ratios else "difference"
    mean = float(changes.mean())
    sd = float(changes.std(ddof=1)) if n > 1 else math.nan
    if n < FEWEST_BLOCKS:
        return Effect(kind, n, back(mean), math.nan, math.nan, math.nan, sd)
    if np.ptp(changes) <= 1e-12 * max(float(np.abs(changes).max()), 1e-300):
        # Every block agrees: the mean has no scatter, and t is undefined.
        p = math.nan if equal else _sign_test(x, y)
        return Effect(kind, n, back(mean), back(mean), back(mean), p, 0.0)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * sd / math.sqrt(n)
    p = float(stats.ttest_1samp(changes, 0.0).pvalue)
    return Effect(kind, n, back(mean), back(mean - half), back(mean + half), p, sd)


def detectable(found: Effect, comparisons: int = 1) -> float:
    """Return the smallest effect that as many blocks with this scatter would have supported in 80 % of cases.

    A ratio above 1, or a difference above 0; NaN where it is not known. A test of one of `comparisons` must reach
    ALPHA / comparisons, the first step of Holm's correction.
    """
    if found.kind == "sign" or found.blocks < FEWEST_BLOCKS or not math.isfinite(found.sd):
        return math.nan
    size = _power_size(found.blocks, ALPHA / max(comparisons, 1)) * found.sd
    return math.exp(size) if found.kind == "ratio" else size


def holm(p: Floats) -> Floats:
    """Return p-values corrected for their number (Holm's step-down); NaN stays NaN and is not counted."""
    result = np.full(len(p), math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return result


def _sign_test(x: Floats, y: Floats) -> float:
    above, below = int((y > x).sum()), int((y < x).sum())
    return float(stats.binomtest(above, above + below).pvalue) if above + below else math.nan


@functools.lru_cache(maxsize=256)
def _power_size(n: int, alpha: float) -> float:
    """Return the mean change, in standard deviations, that a two-sided t-test of `n` blocks finds with POWER."""
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))

    def missing(size: float) -> float:
        return float(stats.nct.sf(critical, n - 1, size * math.sqrt(n))) - POWER

    return float(optimize.brentq(missing, 1e-6, 10 * (critical + 2) / math.sqrt(n)))
