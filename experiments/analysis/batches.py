"""Micro-batch time B and its drift: the time that the chain itself needs after a trigger."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from experiments.analysis.latency import rank_quantile
from experiments.ledger import WINDOW_KEY, require, unique_windows
from experiments.units import NS_PER_S


def batch_times(progress: pd.DataFrame, windows: pd.DataFrame, measured_windows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per micro-batch that read something, in order: `batch_id, trigger_start_ns, batch_s,
    published_s, rows, phase`.

    `batch_s` is Spark's own triggerExecution (from trigger to commit), `published_s` the window's emitted_ns
    - trigger_ns (null if it has no window). `phase` is "measured" for the windows in `measured_windows`, before
    them "warm-up", after them "drain". Spark also reports idle triggers, under the number of the batch to come:
    those are left out.
    """
    require("progress", progress)
    busy = progress[progress["num_input_rows"] > 0].drop_duplicates(["batch_id", "trigger_start_ns"])
    known = unique_windows(windows)
    known = known.assign(published_s=(known["emitted_ns"] - known["trigger_ns"]) / NS_PER_S)
    known = known.merge(measured_windows[WINDOW_KEY].assign(phase="measured"), on=WINDOW_KEY, how="left")
    # Spark's progress does not carry our epoch. Batch numbers repeat only after a new checkpoint; then the nearest
    # trigger in time decides.
    pairs = busy.merge(known, left_on="batch_id", right_on="window", how="left")
    distance = (pairs["trigger_start_ns"] - pairs["trigger_ns"]).abs()
    pairs = pairs.assign(distance=distance).sort_values("distance", kind="stable", na_position="last")
    pairs = pairs.drop_duplicates(["batch_id", "trigger_start_ns"]).sort_values("trigger_start_ns")
    measured = pairs["phase"].eq("measured")
    last_ns = pairs.loc[measured, "trigger_start_ns"].max()
    rest = np.where(pairs["trigger_start_ns"] > last_ns, "drain", "warm-up")
    return pd.DataFrame(
        {
            "batch_id": pairs["batch_id"],
            "trigger_start_ns": pairs["trigger_start_ns"],
            "batch_s": pairs["trigger_execution_ms"] / 1000,
            "published_s": pairs["published_s"],
            "rows": pairs["num_input_rows"],
            "phase": np.where(measured, "measured", rest),
        }
    ).reset_index(drop=True)


@dataclass(frozen=True)
class BatchSummary:
    """Quantiles over the measured batches, in seconds; `headroom` is p95 of B over the trigger interval.

    With few batches p95 is one of the largest values: it is printed with their number.
    """

    batches: int
    batch_p50_s: float
    batch_p95_s: float
    published_p50_s: float
    published_p95_s: float
    headroom: float


def summarise(times: pd.DataFrame, trigger_s: float) -> BatchSummary:
    """Return the quantiles of the measured rows of `batch_times`; NaN without any."""
    measured = times[times["phase"] == "measured"]
    batch = measured["batch_s"].to_numpy(dtype=np.float64)
    published = measured["published_s"].dropna().to_numpy(dtype=np.float64)
    p95 = rank_quantile(batch, 0.95)
    return BatchSummary(
        batches=len(batch),
        batch_p50_s=rank_quantile(batch, 0.5),
        batch_p95_s=p95,
        published_p50_s=rank_quantile(published, 0.5),
        published_p95_s=rank_quantile(published, 0.95),
        headroom=p95 / trigger_s,
    )


@dataclass(frozen=True)
class Drift:
    """The Theil-Sen slope of a figure against time, and its 95 % confidence interval, in ms per minute."""

    slope_ms_per_min: float
    low_ms_per_min: float
    high_ms_per_min: float

    @property
    def present(self) -> bool:
        """Whether the interval excludes zero: the run was not stationary."""
        return self.low_ms_per_min > 0 or self.high_ms_per_min < 0


def drift(trigger_ns: pd.Series[int], seconds: pd.Series[float]) -> Drift:
    """Return the drift of `seconds` over the run; NaN with fewer than eight finite points.

    Theil-Sen is the median of the slopes between all pairs of points: a single slow batch does not tilt it.
    """
    keep = np.isfinite(seconds.to_numpy(dtype=np.float64))
    y = seconds.to_numpy(dtype=np.float64)[keep] * 1000
    x = (trigger_ns.to_numpy(dtype=np.int64)[keep] - trigger_ns.min()) / (60 * NS_PER_S)
    if len(y) < 8:
        return Drift(math.nan, math.nan, math.nan)
    slope, _, low, high = stats.theilslopes(y, x, 0.95)
    return Drift(float(slope), float(low), float(high))
