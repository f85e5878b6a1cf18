"""Confidence intervals over runs, by bootstrap: the run is the unit, as reactions of one micro-batch are correlated.

Intervals are scipy's BCa (Efron, 1987), and are stated from FEWEST_RUNS runs on: with five or fewer, the interval of a
median is [minimum, maximum], which says nothing that the runs' dots do not say.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.errors import SettingError

FEWEST_RUNS = 6
CONFIDENCE = 0.95
RESAMPLES = 4_000
Floats = NDArray[np.float64]
_STATISTICS: dict[str, Callable[..., Any]] = {"mean": np.mean, "median": np.median}


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval from `n` runs; low and high are NaN if n is below FEWEST_RUNS."""

    estimate: float
    low: float
    high: float
    n: int


def interval(
    values: Sequence[float], statistic: str = "median", *, confidence: float = CONFIDENCE, seed: int = 1
) -> Interval:
    """Return the interval of the "median" or "mean" of the `values` of runs; the same arguments give the same.

    NaN (not measured) is left out. Values that are all equal give that point. With +-inf among them (never
    arrived) the limits are ranks of the resampled statistic (percentile method), infinite if the rank is.
    """
    of = _statistic(statistic, confidence)
    runs = _measured(values)
    n = len(runs)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    with np.errstate(invalid="ignore"):
        estimate = float(of(runs))
    if n < FEWEST_RUNS or math.isnan(estimate):
        return Interval(estimate, math.nan, math.nan, n)
    if (runs == runs[0]).all():
        return Interval(estimate, estimate, estimate, n)
    if np.isfinite(runs).all():
        with warnings.catch_warnings():
            # BCa is undefined if leaving out a run never changes the statistic; the ranks below are not.
            warnings.simplefilter("ignore")
            limits = stats.bootstrap(
                (runs,),
                of,
                n_resamples=RESAMPLES,
                confidence_level=confidence,
                method="BCa",
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(limits.low) and math.isfinite(limits.high):
            return Interval(estimate, float(limits.low), float(limits.high), n)
    drawn = runs[np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))]
    with np.errstate(invalid="ignore"):
        resampled = of(drawn, axis=-1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(estimate, float(low), float(high), n)


def _measured(values: Sequence[float]) -> Floats:
    runs = np.asarray(values, dtype=np.float64)
    return runs[~np.isnan(runs)]


def _statistic(name: str, confidence: float) -> Callable[..., Any]:
    if name not in _STATISTICS:
        raise SettingError(f"statistic is {name!r}: choose 'median' or 'mean'")
    if not 0 < confidence < 1:
        raise SettingError(f"confidence is {confidence!r}: give a share between 0 and 1, such as 0.95")
    return _STATISTICS[name]
