"""Numbers as sentences, tables and figures show them."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from experiments.report import format as forms
from experiments.report.format import NBSP


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.004, "4 ms"), (0.0996, "0.10 s"), (3.2, "3.20 s"), (math.inf, "never"), (math.nan, "not measured")],
)
def test_seconds_as_people_say_them(value: float, text: str) -> None:
    """Below 0.1 s a duration is in ms; infinite and unmeasured ones are words."""
    assert forms.seconds(value).replace(NBSP, " ") == text


def test_count_agrees_with_its_noun() -> None:
    """Small numbers are words, large ones have groups of digits, and plurals are formed."""
    assert forms.count(1, "reaction") == "one reaction"
    assert forms.count(0, "client") == "no clients"
    assert forms.count(12034, "reaction") == "12,034 reactions"
    assert forms.count(2, "delivery") == "two deliveries"


def test_share_is_never_rounded_up_to_100_percent() -> None:
    """99.99 % is shown as 99.9 %."""
    assert forms.share(0.9999) == "99.9 %"
    assert forms.share(1.0) == "100 %"
    assert forms.share(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0 %"), (0.0004, "under 0.1 %"), (0.0123, "1.2 %"), (0.9, "90 %"), (0.99, "99 %")),
        *((0.995, "99.5 %"), (0.999, "99.9 %"), (0.9996, "99.9 %"), (1.0, "100 %")),
    ],
)
def test_percent_is_never_rounded_to_0_or_100(value: float, text: str) -> None:
    """99.96 % and 99.9 % are not 100 %, and 0.04 % is not 0 %."""
    assert forms.percent(value).replace(NBSP, " ") == text


def test_plain_null_and_bool() -> None:
    """A nullable integer without a value is a dash; a bool is a word."""
    assert forms.plain(pd.NA) == "–"
    assert forms.plain(True) == "yes"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.25, "s", "0.25 s"),
        (0.25, "share", "25 %"),
        (1234.5, "", "1,234.5"),
        (1234.5, "reactions/s", "1,234 reactions/s"),
        (1.234, "cores", "1.23 cores"),
        (math.nan, "s", "–"),
        (math.inf, "", "∞"),
    ],
)
def test_figure_in_its_unit(value: float, unit: str, text: str) -> None:
    """Each unit has its own form; unmeasured and infinite figures are signs."""
    assert forms.in_unit(value, unit).replace(NBSP, " ") == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(-0.0123, "s", "−12 ms"), (0.05, "share", "+5.0 points"), (3.0, "", "+3"), (250.0, "cores", "+250 cores")],
)
def test_signed_difference_in_its_unit(value: float, unit: str, text: str) -> None:
    """Seconds become ms and shares points."""
    assert forms.difference(value, unit, signed=True).replace(NBSP, " ") == text


def test_interval_without_repeated_unit() -> None:
    """The ends leave out a unit that the median has; few runs have no interval."""
    row = {"runs": 6, "median": 0.31, "low": 0.3, "high": 0.33}
    assert forms.spread(row).replace(NBSP, " ") == "0.31 s (0.30 to 0.33)"
    assert forms.spread(row | {"runs": 5}).replace(NBSP, " ") == "0.31 s"
