"""Consumer lag: how many records were unread in the topic when a trigger was due, and whether the number grows.

The lag is sampled at every moment a trigger is due (the multiples of the trigger interval), as

    L(d) = number of records appended up to d, and not read by a window triggered up to d + SLACK_S.

It is a count of records, so that records that Spark reads early (it asks for the latest offsets a few ms after the
trigger, and takes the records of those ms too) do not make the lag negative. A chain that keeps up reads all records at
every trigger: L is 0 each time, for any load and any scatter, and so is its slope. That is why L is taken neither from
the size of a micro-batch nor at its end: there Poisson noise alone, at one reaction per second and twenty windows,
gives a slope with a standard error above 1 % of the load.

A chain that cannot keep up has L > 0 in one of two ways. If a micro-batch is bounded, it leaves records behind. If it
reads all, as here up to `window_max`, micro-batches become longer than the interval: a trigger is due while the batch
before is still running, and all records since then wait. A single trigger missed by chance is a lag as well: it widens
the interval, and a short run can then not show that its lag is steady.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant

from experiments.ledger import Records, pieces
from experiments.units import NS_PER_S

FEWEST_POINTS = 8
SLACK_S = 0.1
"""A micro-batch that starts within this time after its trigger was due is on time."""


def arrivals(records: Records, trigger_s: float) -> pd.DataFrame:
    """Return `due_ns, read_ns, records`: how many records wait from the due trigger at or after their append until the
    window triggered at `read_ns` (the largest integer: none reads them).

    `records` are those of all of the run (ledger.placed).
    """
    interval_ns = round(trigger_s * NS_PER_S)
    appended = records.topic["appended_ns"].to_numpy(dtype=np.int64)
    read = np.append(records.windows["trigger_ns"].to_numpy(dtype=np.int64), np.iinfo(np.int64).max)
    parts = []
    for part in pieces(len(appended)):
        due = -(-appended[part] // interval_ns)
        first = int(due.min())
        cells, counts = np.unique((due - first) * len(read) + records.owner[part] + 1, return_counts=True)
        number, owner = np.divmod(cells, len(read))
        parts.append(np.array([(number + first) * interval_ns, read[owner - 1], counts]))
    columns = np.concatenate([np.zeros((3, 0), dtype=np.int64), *parts], axis=1)
    return pd.DataFrame(dict(zip(("due_ns", "read_ns", "records"), columns, strict=True)))


def lags(arrivals: pd.DataFrame, trigger_s: float, measured: pd.DataFrame) -> pd.DataFrame:
    """Return `due_ns, lag`: L at every due trigger from the first to the last of the `measured` windows
    (latency.EndToEnd.windows, or any rows of the windows).

    `arrivals` is the function's of that name. Records of no window count as unread.
    """
    if measured.empty:
        return pd.DataFrame({"due_ns": np.zeros(0, dtype=np.int64), "lag": np.zeros(0, dtype=np.int64)})
    interval_ns, slack_ns = round(trigger_s * NS_PER_S), round(SLACK_S * NS_PER_S)
    triggers = measured["trigger_ns"].to_numpy(dtype=np.int64)
    due = np.arange(triggers.min() // interval_ns, triggers.max() // interval_ns + 1) * interval_ns
    # A record waits at the due moments in [appended, read - slack): one step up, one step down.
    first = np.searchsorted(due, arrivals["due_ns"].to_numpy(), "left")
    beyond = np.maximum(np.searchsorted(due, arrivals["read_ns"].to_numpy() - slack_ns, "left"), first)
    steps = np.zeros(len(due) + 1, dtype=np.int64)
    np.add.at(steps, first, arrivals["records"].to_numpy())
    np.subtract.at(steps, beyond, arrivals["records"].to_numpy())
    return pd.DataFrame({"due_ns": due, "lag": np.cumsum(steps)[: len(due)]})


@dataclass(frozen=True)
class Slope:
    """How fast a lag grows, records per second, with its 95 % confidence interval, from `points` samples."""

    per_s: float
    low_per_s: float
    high_per_s: float
    points: int


def lag_slope(lags: pd.DataFrame) -> Slope:
    """Return the slope of `lags` (`due_ns, lag`) against time; NaN with fewer than FEWEST_POINTS samples."""
    return slope((lags["due_ns"] - lags["due_ns"].min()) / NS_PER_S, lags["lag"])


def slope(t_s: Sequence[float] | pd.Series[Any], values: Sequence[float] | pd.Series[Any]) -> Slope:
    """Return the least-squares slope of evenly spaced `values` with an interval that respects autocorrelation.

    The standard error is the larger of two. Newey and West's (1987), as statsmodels has it (HAC, Bartlett
    kernel of 4 (n/100)^(2/9) lags, small-sample correction): alone it is too narrow for runs of our length: in
    simulation with 20 points its interval held the truth in 88 % of independent and 76 % of AR(1) series with
    rho = 0.5. And the classical one times sqrt((1 + r) / (1 - r)), the loss of an AR(1) series, with r the
    residuals' first autocorrelation, corrected for its bias (Kendall, 1954) and no less than 0: together 95 %
    and 88 %. Quantiles are Student's t with n - 2 degrees of freedom.
    """
    y = np.asarray(values, dtype=np.float64)
    x = np.asarray(t_s, dtype=np.float64)
    n = len(y)
    if n < FEWEST_POINTS:
        return Slope(math.nan, math.nan, math.nan, n)
    if np.ptp(y) == 0:
        return Slope(0.0, 0.0, 0.0, n)
    fit = OLS(y, add_constant(x - x.mean())).fit()
    per_s = float(fit.params[1])
    robust = fit.get_robustcov_results("HAC", maxlags=int(4 * (n / 100) ** (2 / 9)), use_correction=True, use_t=True)
    error = max(float(robust.bse[1]), float(fit.bse[1]) * _inflation(fit.resid))
    half = float(stats.t.ppf(0.975, n - 2)) * error
    return Slope(per_s, per_s - half, per_s + half, n)


def _inflation(residuals: NDArray[np.float64]) -> float:
    square = float(residuals @ residuals)
    if square == 0:
        return 1.0
    raw = float(residuals[1:] @ residuals[:-1]) / square
    r = min(max(raw + (1 + 3 * max(raw, 0.0)) / len(residuals), 0.0), 0.97)
    return math.sqrt((1 + r) / (1 - r))
