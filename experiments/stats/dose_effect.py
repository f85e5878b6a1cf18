"""The effects of doses, within blocks, and the dose at which each may reach a stated size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.errors import SettingError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class DoseEffect:
    """The effect of one unit of dose with its interval.

    `residual` is the standard deviation of the runs around what their doses say, in units of the response; `runs` how
    many there are.
    """

    slope: float
    low: float
    high: float
    residual: float
    runs: int

    def limit(self, effect: float) -> float:
        """Return the dose up to which the effect is below `effect` even at the interval's upper end; inf if always."""
        return effect / self.high if self.high > 0 else math.inf


def fit(
    doses: Mapping[str, Sequence[float]], response: Sequence[float], block: Sequence[object]
) -> dict[str, DoseEffect]:
    """Return the effect of each of the `doses` on `response` beside the others, within blocks.

    Least squares with a mean of its own for each block; the intervals are Student's. Raises SettingError if a value is
    not finite, if the doses cannot be told apart within the blocks, or if fewer than two degrees of freedom are left.
    """
    x = np.column_stack([np.asarray(each, dtype=np.float64) for each in doses.values()])
    y = np.asarray(response, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise SettingError("a dose or a response is not a finite number: leave that run out, and say so")
    names = list(dict.fromkeys(block))
    of_run = np.array([names.index(name) for name in block], dtype=np.int64)
    freedom = len(x) - len(names) - len(doses)
    if freedom < 2:
        raise SettingError(f"{len(x)} runs in {len(names)} blocks: at least {len(names) + len(doses) + 2} are needed")
    for number in range(len(names)):
        x[of_run == number] -= x[of_run == number].mean(axis=0)
        y[of_run == number] -= y[of_run == number].mean()
    if np.linalg.matrix_rank(x) < len(doses):
        raise SettingError(f"within the blocks {' and '.join(doses)} do not vary by themselves: vary each in a run")
    slopes = np.linalg.lstsq(x, y, rcond=None)[0]
    residual = math.sqrt(float(((y - x @ slopes) ** 2).sum()) / freedom)
    halves = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * residual * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    return {
        name: DoseEffect(float(slope), float(slope - half), float(slope + half), residual, len(y))
        for name, slope, half in zip(doses, slopes, halves, strict=True)
    }
