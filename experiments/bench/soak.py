"""The soak: half an hour at four fifths of the capacity, in which no stage may grow and nothing may be lost."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import frame_files
from experiments.analysis.lag import slope
from experiments.analysis.usage import NO_STAGES
from experiments.campaign import campaign_file, keep
from experiments.campaign.report import capacity
from experiments.parameters import checked
from experiments.repository import REPORTS
from experiments.run.measure import measure
from experiments.run.usage import MEASUREMENT
from experiments.units import NS_PER_S
from pipeline.errors import SettingError

MINUTES = 30
SHARE = 0.8
CAMPAIGN = "capacity_rows"
SETTLING_S = 300.0
"""What grows at first is no leak: heaps, caches, and a subscriber's ring."""
MEAN_S = 10.0
BESIDE = (*NO_STAGES, MEASUREMENT, "load", "receivers")
"""The machine, other programs, and the instrument, which keeps all that it sends and receives."""


def soak() -> dict[str, Any]:
    """Measure one long run at SHARE of the capacity that the campaign CAMPAIGN has found, with its parameters.

    Raises SettingError without such a campaign.
    """
    # This machine's own, or the one that is kept.
    own, kept = REPORTS / CAMPAIGN, REPORTS / keep.FOLDER / CAMPAIGN
    campaign = own if own.is_dir() else kept
    rate_per_s = load(campaign)
    # The capacity is that of a chain with these.
    given = checked({**campaign_file.read(campaign).design.parameters, "rate_per_s": rate_per_s})
    parameters = replace(given, measured_triggers=round(MINUTES * 60 / given.trigger_s))
    with tempfile.TemporaryDirectory(prefix="emostream-soak-") as scratch:
        result = measure(parameters, Path(scratch), page=False)
        usage = frame_files.read(Path(scratch) / "usage.parquet", "usage")
    summary = result.analysis.summary
    grown = growth(usage)
    return {
        "minutes": MINUTES,
        "rate_per_s": rate_per_s,
        "worst_rss_slope_mb_min": round(
            max((each["slope"] for each in grown.values() if each["low"] > 0), default=0), 3
        ),
        "lag_slope_share": summary["lag_slope_upper_share"],
        **{name: summary[name] for name in ("accepted", "counted", "lost", "duplicated", "valid", "passed")},
        "rss_mb": grown,
    }


def load(campaign: Path) -> float:
    """Return SHARE of the capacity that a search has found, reactions per second, in tens.

    Raises SettingError if there is no such search, or if it has no estimate.
    """
    estimate = capacity.read(campaign).estimate_per_s if campaign.is_dir() else None
    if estimate is None:
        raise SettingError(
            f"{campaign} has no capacity in reactions per second: find it first, with emostream sweep {CAMPAIGN}"
        )
    return float(round(SHARE * estimate, -1))


def growth(usage: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return of each stage's memory the first and last mean, MB, and its slope with its 95 % interval, MB per minute.

    `usage` has `t_ns, stage, rss_bytes` (see `experiments.run.usage`); the first SETTLING_S do not count.
    """
    found = {}
    timed = usage.assign(t_s=(usage["t_ns"] - usage["t_ns"].min()) / NS_PER_S)
    late = timed[(timed["t_s"] >= SETTLING_S) & ~timed["stage"].isin(BESIDE)]
    for stage, rows in late.groupby("stage"):
        means = (rows["rss_bytes"] / 2**20).groupby(rows["t_s"] // MEAN_S).mean()
        fit = slope(means.index.to_series() * MEAN_S / 60, means)
        found[str(stage)] = {
            "first": round(float(means.iloc[0]), 1),
            "last": round(float(means.iloc[-1]), 1),
            "slope": round(fit.per_s, 3),
            "low": round(fit.low_per_s, 3),
            "high": round(fit.high_per_s, 3),
        }
    return found
