"""How numbers are written: in sentences, in tables and in figures. Sentences and pages only put them together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from experiments.stats.bootstrap import FEWEST_RUNS

Form = Callable[[float], str]

NBSP = "\u00a0"  # a number and its unit stay on one line
DASH = "–"
_NUMBERS = "no one two three four five six seven eight nine ten eleven twelve"


def number(value: int) -> str:
    """Return an integer as prose has it: words to twelve and for a hundred, else digits in groups."""
    if value == 100:
        return "a hundred"
    words = _NUMBERS.split()
    return words[value] if 0 <= value < len(words) else whole(value)


def count(value: int, noun: str) -> str:
    """Return `value` and its noun, in the plural where English wants one."""
    if value == 1:
        return f"{number(value)} {noun}"
    ends = noun.endswith("y") and noun[-2] not in "aeiou"
    return f"{number(value)} {noun[:-1]}ies" if ends else f"{number(value)} {noun}s"


def whole(value: int) -> str:
    """Return an integer with its digits in groups."""
    return f"{value:,}"


def rounded(value: float) -> str:
    """Return a number without decimals, its digits in groups."""
    return f"{value:,.0f}"


def grouped(value: float) -> str:
    """Return a number with its digits in groups and no needless decimals."""
    return f"{value:,.10g}"


def four_digits(value: float) -> str:
    """Return a number with four digits, or with all of them from 1,000."""
    return f"{value:,.4g}" if value < 1000 else rounded(value)


def plain(value: Any) -> str:
    """Return any value as a table shows it, a dash for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return DASH
    return f"{value:g}" if isinstance(value, float) else str(value)


def seconds(value: float | None) -> str:
    """Return a duration as people say it: "0.32 s", below 0.1 s "4 ms"; "never" if it is infinite."""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "never"
    return f"{value * 1000:.0f}{NBSP}ms" if abs(value) < 0.0995 else f"{value:.2f}{NBSP}s"


def ms(value: float) -> str:
    """Return milliseconds without their unit."""
    if math.isnan(value):
        return DASH
    return rounded(value) if abs(value) >= 100 else f"{value:.1f}"


def ms_of(value_s: float) -> str:
    """Return seconds in milliseconds, with two digits below 10 ms."""
    value_ms = value_s * 1000
    return f"{value_ms:.2g}{NBSP}ms" if value_ms < 9.95 else f"{rounded(value_ms)}{NBSP}ms"


def share(value: float | None) -> str:
    """Return a share in per cent for a table, never rounded up to 100 %."""
    if value is None or math.isnan(value):
        return DASH
    return f"{_nearly_all(value)} %" if 0.99 < value < 1 else f"{value * 100:.1f} %".replace("100.0", "100")


def _nearly_all(value: float) -> str:
    """Return a share between 0.99 and 1 in hundredths, rounded down to a tenth."""
    return f"{math.floor(value * 1000) / 10:.1f}"


def percent(value: float) -> str:
    """Return a share in per cent for prose: two digits, and never a rounded "0 %" or "100 %" that is not exact."""
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "beyond measure"
    shown = value * 100
    if 0 < abs(shown) < 0.1:
        return f"under 0.1{NBSP}%"
    if 0.99 < value < 1:
        return f"{_nearly_all(value)}{NBSP}%"
    return f"{shown:.1f}{NBSP}%" if abs(shown) < 9.95 and shown != round(shown) else f"{rounded(shown)}{NBSP}%"


def whole_percent(value: float) -> str:
    """Return a share in per cent, without decimals."""
    return f"{value * 100:.0f}{NBSP}%"


def fine_percent(value: float) -> str:
    """Return a share in per cent with up to two decimals, the more the smaller it is."""
    digits = 0 if value >= 0.0995 or value == 0 else 1 if value >= 0.00995 else 2
    return f"{100 * value:,.{digits}f}{NBSP}%"


def in_unit(value: float, unit: str) -> str:
    """Return a figure or a limit with its unit: s, share, none, or any other."""
    if math.isnan(value):
        return DASH
    if unit == "s":
        return seconds(value)
    if math.isinf(value):
        return "∞"
    if unit == "share":
        return percent(value)
    if unit == "":
        return grouped(value)
    return f"{_three_digits(value)}{NBSP}{unit}"


def difference(value: float, unit: str, *, signed: bool = False) -> str:
    """Return a difference: seconds in ms, so that both ends of an interval have one unit, and shares in points."""
    sign = "−" if value < 0 else "+" if signed and value > 0 else ""
    size = abs(value)
    if math.isinf(size) or math.isnan(size):
        return f"{sign}∞" if math.isinf(size) else DASH
    if unit == "s":
        return f"{sign}{rounded(size * 1000)}{NBSP}ms"
    if unit == "share":
        return f"{sign}{size * 100:.1f}{NBSP}points"
    if unit == "":
        return f"{sign}{size:g}"
    return f"{sign}{_three_digits(size)}{NBSP}{unit}"


def _three_digits(value: float) -> str:
    return rounded(value) if value >= 100 else f"{value:.3g}"


def spread(row: Any, form: Form = seconds) -> str:
    """Return a median with its interval: "0.31 s (0.30 to 0.33)"; the median alone where it has no interval."""
    interval = spread_only(row, form)
    return f"{form(row['median'])} ({interval})" if interval else form(row["median"])


def spread_only(row: Any, form: Form) -> str:
    """Return the interval of a median, "" where it has none: for few runs, or where the upper end is infinite."""
    if row["runs"] < FEWEST_RUNS or not math.isfinite(row["high"]):
        return ""
    return between(form(row["low"]), form(row["high"]), form(row["median"]))


def between(low: str, high: str, beside: str) -> str:
    """Return a range, without its unit where it has the unit of the figure `beside` it."""
    units = {text.rpartition(NBSP)[2] for text in (low, high, beside)}
    if len(units) == 1 and NBSP in low:
        low, high = (text.rpartition(NBSP)[0] for text in (low, high))
    return low if low == high else f"{low} to {high}"


def listed(parts: list[str]) -> str:
    """Return parts as prose lists them: "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def left_out(invalid: int, unsteady: int) -> str:
    """Return how many runs may not be quoted: "two are invalid and one is unsteady", empty without any."""
    kinds = ((invalid, "invalid"), (unsteady, "unsteady"))
    return listed([f"{number(runs)} {'is' if runs == 1 else 'are'} {kind}" for runs, kind in kinds if runs])


def hop_name(hop: str) -> str:
    """Return a hop's name in words: "trigger wait", "micro-batch"."""
    return hop.replace("_", " ").replace("micro batch", "micro-batch")


def upper(text: str) -> str:
    """Return a text that starts with a capital letter."""
    return text[:1].upper() + text[1:]


def lower(text: str) -> str:
    """Return a text that starts with a small letter."""
    return text[:1].lower() + text[1:]
