"""The Universal Scalability Law, X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1)).

Source: N. J. Gunther, Guerrilla Capacity Planning, Springer 2007. lambda is the throughput of one, sigma the
share of work that waits for others (contention), kappa the cost of agreeing with them (coherency). N is the
number of users of a closed loop, or of processors, and X the throughput they reach: only closed-loop throughput or
capacity against resources may be fitted, never open-loop points, whose X is the offered load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import curve_fit

from pipeline.errors import SettingError

FEWEST_LEVELS = 4
PARAMETERS = 3
LACK_OF_FIT = 0.05
RESAMPLES = 400
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Usl:
    """The fitted law: its parameters, their 95 % `intervals` by name, the N of the greatest X (`peak_n`, inf without
    coherency), and the p-value of its `lack_of_fit` (NaN: not known; below LACK_OF_FIT the runs do not follow the law).
    """

    lambda_: float
    sigma: float
    kappa: float
    intervals: dict[str, tuple[float, float]]
    peak_n: float
    lack_of_fit: float


def throughput(n: Floats, lambda_: float, sigma: float, kappa: float) -> Floats:
    """Return X(N)."""
    return np.asarray(lambda_ * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)), dtype=np.float64)


def fit(concurrency: Sequence[float], measured: Sequence[float], seed: int = 1) -> Usl:
    """Return the law that fits the throughput `measured` at each run's `concurrency`, all parameters >= 0.

    Deviations count in relation to the throughput. Intervals are percentiles over fits to resampled relative
    residuals, each widened for its degrees of freedom. Raises SettingError with fewer than FEWEST_LEVELS
    distinct levels: three parameters always fit three points.
    """
    n = np.asarray(concurrency, dtype=np.float64)
    x = np.asarray(measured, dtype=np.float64)
    _check(n, x)
    best = _fit(n, x)
    fitted = throughput(n, *best)
    residuals = (x / fitted - 1) * math.sqrt(len(n) / (len(n) - PARAMETERS))
    rng = np.random.default_rng(seed)
    names = ("lambda_", "sigma", "kappa")
    again = np.array(
        [_fit(n, fitted * np.maximum(1 + rng.choice(residuals, len(n)), 0.01), best) for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    lambda_, sigma, kappa = (float(value) for value in best)
    return Usl(
        lambda_,
        sigma,
        kappa,
        {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)},
        _peak(sigma, kappa),
        lack_of_fit(n, x, fitted),
    )


def lack_of_fit(n: Floats, measured: Floats, fitted: Floats) -> float:
    """Return the p-value of the F-test for lack of fit: do the levels' means miss the curve by more than runs scatter?

    Deviations are relative to the `fitted` throughput of each run. It is NaN unless some level of `n` has two runs, and
    there are more levels than parameters. Source: Draper and Smith, Applied Regression Analysis, Wiley 1998, 2.1.
    """
    ratio = measured / fitted
    levels, of_run = np.unique(n, return_inverse=True)
    runs = np.bincount(of_run)
    means = np.bincount(of_run, ratio) / runs
    of_curve, of_runs = len(levels) - PARAMETERS, len(n) - len(levels)
    if of_curve < 1 or of_runs < 1:
        return math.nan
    curve, pure = float((runs * (means - 1) ** 2).sum()), float(((ratio - means[of_run]) ** 2).sum())
    if pure <= 1e-18 * len(n):
        # Runs without scatter: any distance from the curve that is more than rounding is a lack of fit.
        return 1.0 if curve <= 1e-6 else 0.0
    return float(stats.f.sf((curve / of_curve) / (pure / of_runs), of_curve, of_runs))


def _fit(n: Floats, x: Floats, start: Floats | None = None) -> Floats:
    first = (float((x / n).max()), 0.05, 1e-4) if start is None else tuple(np.maximum(start, 1e-12))
    best, _ = curve_fit(
        throughput, n, x, first, sigma=x, bounds=(0, np.inf), x_scale=(first[0], 0.1, 1e-3), max_nfev=5_000
    )
    return np.asarray(best, dtype=np.float64)


def _peak(sigma: float, kappa: float) -> float:
    return max(math.sqrt(max(1 - sigma, 0) / kappa), 1.0) if kappa > 1e-12 else math.inf


def _check(n: Floats, x: Floats) -> None:
    if len(n) != len(x):
        raise SettingError(f"{len(n)} levels of concurrency and {len(x)} throughputs: give one of each per run")
    for name, values in (("concurrency", n), ("throughput", x)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise SettingError(f"{name} has {values.tolist()}: a fit needs finite values above 0")
    levels = sorted(set(n.tolist()))
    if len(levels) < FEWEST_LEVELS:
        shown = ", ".join(f"{level:g}" for level in levels)
        raise SettingError(
            f"concurrency has {len(levels)} distinct levels ({shown}): a fit of three parameters needs "
            f"{FEWEST_LEVELS} or more"
        )
