"""The floor: the lowest latency possible with this trigger and flush, and the excess over it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.analysis.latency import Histogram
from pipeline.errors import SettingError


@dataclass(frozen=True)
class Waits:
    """The waits that set the floor: trigger and flush interval, the flush's phase ("aligned" | "free") and lead."""

    trigger_s: float
    flush_s: float
    phase: str
    lead_s: float = 0.0

    def quantile_s(self, q: float) -> float:
        """Return the floor's quantile in seconds."""
        return floor_quantile(q, self.trigger_s, self.flush_s, self.phase, self.lead_s)


def floor_quantile(q: float, trigger_s: float, flush_s: float, phase: str, lead_s: float = 0.0) -> float:
    """Return the quantile of the latency, in seconds, that these waits alone make unavoidable.

    `phase="aligned"`: a flush lands `lead_s` before each trigger, so a reaction waits U(lead, trigger +
    lead). `phase="free"`: flushes of no fixed phase, dense traffic: U(0, trigger) + U(0, flush), whose
    distribution function rises as x²/(2ab), then (x - a/2)/b, then 1 - (a + b - x)²/(2ab) for a <= b.
    """
    if not 0 <= q <= 1:
        raise SettingError(f"q is {q!r}: give a quantile from 0 to 1.")
    if trigger_s <= 0 or flush_s < 0 or lead_s < 0:
        raise SettingError(
            f"trigger_s, flush_s, lead_s are {trigger_s!r}, {flush_s!r}, {lead_s!r}: give a trigger_s "
            "above 0, and 0 or more for the others."
        )
    if phase == "aligned":
        return lead_s + q * trigger_s
    if phase != "free":
        raise SettingError(f"phase is {phase!r}: choose 'aligned' or 'free'.")
    a, b = sorted((trigger_s, flush_s))
    if a == 0:
        return q * b
    edge = a / (2 * b)
    if q < edge:
        return math.sqrt(2 * a * b * q)
    if q > 1 - edge:
        return a + b - math.sqrt(2 * a * b * (1 - q))
    return q * b + a / 2


NAMED = (0.5, 0.9, 0.95, 0.99, 0.999)


def spectrum(histogram: Histogram, waits: Waits, points: int = 240) -> pd.DataFrame:
    """Return the percentile spectrum: `quantile, observed_s, floor_s, excess_s`, from 0 as far as the
    data allow.

    The quantiles are evenly spaced in log10(1 / (1 - q)), which gives each further nine the same width, and
    end where ten reactions are left (latency.printable). Empty for an empty histogram.
    """
    furthest = math.log10(max(histogram.reactions, 1) / 10)
    if furthest <= 0 or histogram.samples == 0:
        return pd.DataFrame(columns=["quantile", "observed_s", "floor_s", "excess_s"], dtype="float64")
    even = 1 - 10.0 ** -np.linspace(0, furthest, points)
    # The quantiles of the tables are included: a figure and a table then never differ in the last digit.
    named = [q for q in NAMED if q <= even[-1]]
    quantiles = np.unique(np.concatenate([even, named]))
    observed = np.array([histogram.quantile_s(float(q)) for q in quantiles])
    floor = np.array([waits.quantile_s(float(q)) for q in quantiles])
    return pd.DataFrame({"quantile": quantiles, "observed_s": observed, "floor_s": floor, "excess_s": observed - floor})
