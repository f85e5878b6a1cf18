"""The effect of a dose, within blocks, and the dose at which it may reach a stated size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.errors import SettingError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class DoseEffect:
    """A straight line through the runs of each block: the effect of one unit of dose with its interval.

    `residual` is the standard deviation of the runs around the line, in units of the response; `runs` how many there
    are, and `levels` how many distinct doses.
    """

    slope: float
    low: float
    high: float
    residual: float
    runs: int
    levels: int

    def limit(self, effect: float) -> float:
        """Return the dose up to which the effect is below `effect` even at the interval's upper end; inf if always."""
        return effect / self.high if self.high > 0 else math.inf


def fit(dose: Sequence[float], response: Sequence[float], block: Sequence[object]) -> DoseEffect:
    """Return the effect of `dose` on `response`, each run compared with the other runs of its block.

    Least squares with a mean of its own for each block; the interval is Student's. Raises SettingError if a value is
    not finite, if the doses of no block differ, or if fewer than two degrees of freedom are left.
    """
    x, y = np.asarray(dose, dtype=np.float64), np.asarray(response, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise SettingError("a dose or a response is not a finite number: leave that run out, and say so")
    names = list(dict.fromkeys(block))
    of_run = np.array([names.index(name) for name in block], dtype=np.int64)
    freedom = len(x) - len(names) - 1
    if freedom < 2:
        raise SettingError(f"{len(x)} runs in {len(names)} blocks: at least {len(names) + 3} are needed")
    for number in range(len(names)):
        x[of_run == number] -= x[of_run == number].mean()
        y[of_run == number] -= y[of_run == number].mean()
    spread = float((x**2).sum())
    if spread == 0:
        raise SettingError("all runs of a block have the same dose: vary it")
    slope = float((x * y).sum()) / spread
    residual = math.sqrt(float(((y - slope * x) ** 2).sum()) / freedom)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * residual / math.sqrt(spread)
    return DoseEffect(slope, slope - half, slope + half, residual, len(x), len(set(dose)))
