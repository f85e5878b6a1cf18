"""How a campaign's figures read, in sentences and in tables: shares, objectives, and medians with their interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from experiments.campaign.report.levels import FEW_RUNS
from experiments.report.sentences import NBSP, seconds


def spread(row: Any, form: Callable[[float], str] = seconds) -> str:
    """Return a median with its interval: "0.31 s (0.30 to 0.33)"; bare where there is none."""
    if row["runs"] < FEW_RUNS or not math.isfinite(row["high"]):
        return str(form(row["median"]))
    return f"{form(row['median'])} ({between(form(row['low']), form(row['high']), form(row['median']))})"


def between(low: str, high: str, beside: str) -> str:
    """Return a range, its unit left out where it is that of the figure `beside` it."""
    units = {text.rpartition(NBSP)[2] for text in (low, high, beside)}
    if len(units) == 1 and NBSP in low:
        low, high = (text.rpartition(NBSP)[0] for text in (low, high))
    return low if low == high else f"{low} to {high}"


def percent(value: float) -> str:
    """Return a share as prose has it: two figures, and never a rounded "0 %" or "100 %" that is not exact."""
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "beyond measure"
    shown = value * 100
    if 0 < abs(shown) < 0.1:
        return f"under 0.1{NBSP}%"
    if 99.9 < shown < 100:
        return f"99.9{NBSP}%"
    return f"{shown:.1f}{NBSP}%" if abs(shown) < 9.95 and shown != round(shown) else f"{shown:,.0f}{NBSP}%"


def slo_figure(value: float, unit: str) -> str:
    """Return an objective's figure or limit in its unit."""
    if math.isnan(value):
        return "–"
    if unit == "s":
        return seconds(value)
    if math.isinf(value):
        return "∞"
    return percent(value) if unit == "share" else f"{value:,.10g}"
