"""The floor: the lowest latency possible with this trigger and flush.

Each reaction has a floor of its own: from its intended send to the earliest trigger that could count it
(`earliest_triggers`). `floor_quantile` is the distribution of that wait for evenly spread arrivals: a figure to compare
a window's latency with, and never one to subtract.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.analysis.latency import Histogram
from experiments.ledger import Ints
from experiments.units import NS_PER_S
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


def earliest_triggers(intended_ns: Ints, waits: Waits, flushed_ns: Ints) -> Ints:
    """Return of each intended send (epoch ns) the earliest trigger that could count it (epoch ns).

    It is the first trigger at or after the first flush at or after the send. Aligned flushes are `lead_s` before the
    multiples of `flush_s`. Free flushes have no grid: the first of `flushed_ns` (the flushes that the topic shows, in
    any order) counts, but no later than `flush_s` after the send, since a flush is due by then.
    """
    trigger_ns, interval_ns = round(waits.trigger_s * NS_PER_S), round(waits.flush_s * NS_PER_S)
    flush_ns = intended_ns
    if waits.phase == "aligned" and interval_ns:
        lead_ns = round(waits.lead_s * NS_PER_S)
        flush_ns = _next_multiple(intended_ns + lead_ns, interval_ns) - lead_ns
    elif interval_ns:
        flush_ns = intended_ns + interval_ns
        if len(flushed_ns):
            moments = np.append(np.unique(flushed_ns), np.iinfo(np.int64).max)
            flush_ns = np.minimum(flush_ns, moments[np.searchsorted(moments, intended_ns, "left")])
    return _next_multiple(flush_ns, trigger_ns)


def _next_multiple(moments: Ints, interval: int) -> Ints:
    return np.asarray(-(-moments // interval) * interval, dtype=np.int64)


NAMED = (0.5, 0.9, 0.95, 0.99, 0.999)
Quantiles = Callable[[float], float]
"""`quantiles(q)`: seconds."""


def spectrum(histogram: Histogram, floor: Quantiles, excess: Quantiles, points: int = 240) -> pd.DataFrame:
    """Return the percentile spectrum: `quantile, observed_s, floor_s, excess_s`, from 0 as far as the
    data allow.

    Each column holds quantiles of its own: those of the excess are not the differences of the other two. The
    quantiles are evenly spaced in log10(1 / (1 - q)), which gives each further nine the same width, and end where
    ten reactions are left (latency.printable). Empty for an empty histogram.
    """
    furthest = math.log10(max(histogram.reactions, 1) / 10)
    if furthest <= 0 or histogram.samples == 0:
        return pd.DataFrame(columns=["quantile", "observed_s", "floor_s", "excess_s"], dtype="float64")
    even = 1 - 10.0 ** -np.linspace(0, furthest, points)
    # The quantiles of the tables are included: a figure and a table then never differ in the last digit.
    named = [q for q in NAMED if q <= even[-1]]
    quantiles = np.unique(np.concatenate([even, named]))
    observed = np.array([histogram.quantile_s(float(q)) for q in quantiles])
    columns = {name: [of(float(q)) for q in quantiles] for name, of in (("floor_s", floor), ("excess_s", excess))}
    return pd.DataFrame({"quantile": quantiles, "observed_s": observed, **columns})
