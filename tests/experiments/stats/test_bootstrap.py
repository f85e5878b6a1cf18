"""Intervals over runs: as often right as they say, the same for the same seed, and honest about too little."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.stats.bootstrap import ENOUGH_RUNS, Interval, coverage, difference, interval
from pipeline.errors import SettingError


@pytest.mark.parametrize(("statistic", "n", "least"), [("mean", 5, 0.80), ("mean", 10, 0.87), ("median", 5, 0.85)])
def test_an_interval_holds_the_truth_about_as_often_as_documented(statistic: str, n: int, least: float):
    """Of 200 samples of normal values with mean and median 3, the stated share of intervals holds 3."""
    rng = np.random.default_rng(17)
    held = 0
    for _ in range(200):
        found = interval(rng.normal(3, 1, n), statistic)
        held += found.low <= 3 <= found.high
    assert least <= held / 200 <= 0.99


def _excludes_zero(found: Interval) -> bool:
    return found.low > 0 or found.high < 0


def test_a_difference_holds_the_truth_and_finds_what_is_there():
    """Two groups of 8 runs a standard deviation apart: the true difference is nearly always inside; a large one
    excludes 0, and none at all seldom does.
    """
    rng = np.random.default_rng(18)
    held = wrong = found = 0
    for _ in range(150):
        a, b = rng.normal(3, 1, 8), rng.normal(3, 1, 8)
        held += (near := difference(a, b + 1, "mean")).low <= 1 <= near.high
        wrong += _excludes_zero(difference(a, b, "mean"))
        found += _excludes_zero(difference(a, b + 4, "mean"))
    assert held / 150 >= 0.85
    assert wrong / 150 <= 0.13
    assert found == 150


@pytest.mark.parametrize("runs", [3, 4, 5])
def test_coverage_of_few_runs_is_as_documented(runs: int):
    """Of 300 samples of so few runs, the median's interval holds the truth as often as `coverage` says, not 95 %."""
    rng = np.random.default_rng(20)
    held = 0
    for _ in range(300):
        found = interval(rng.normal(3, 1, runs))
        held += found.low <= 3 <= found.high
    assert held / 300 == pytest.approx(coverage(runs), abs=0.055)
    assert coverage(ENOUGH_RUNS - 1) < 0.9 < coverage(ENOUGH_RUNS) < coverage(40) == 0.95


def test_few_runs_have_an_estimate_and_no_interval():
    """Below three runs only the dots can be shown; without any there is nothing; NaN is no run."""
    two = interval([1.0, 3.0], "mean")
    assert two.estimate == 2
    assert two.n == 2
    assert math.isnan(two.low)
    assert math.isnan(two.high)
    assert interval([math.nan, 1.0, 2.0, 3.0], "mean").n == 3
    assert math.isnan(interval([]).estimate)
    assert interval([math.nan]).n == 0
    assert math.isnan(difference([1.0, 2.0, 3.0], [1.0]).low)
    assert math.isnan(difference([], [1.0]).estimate)


def test_equal_values_are_a_point():
    """What never varied has an interval of no width, also as a difference."""
    assert interval([0.0] * 5) == Interval(0.0, 0.0, 0.0, 5)
    assert difference([1.0] * 3, [4.0] * 4) == Interval(3.0, 3.0, 3.0, 3)
    assert interval([math.inf] * 3) == Interval(math.inf, math.inf, math.inf, 3)


def test_missing_arrivals_widen_an_interval_to_infinity():
    """One run of five without an arrival leaves the median finite and its upper limit infinite."""
    found = interval([1.0, 2.0, 3.0, 4.0, math.inf])
    assert found.estimate == 3
    assert 1 <= found.low < 3
    assert found.high == math.inf
    assert interval([1.0, 2.0, 3.0, math.inf], "mean").estimate == math.inf
    assert math.isnan(difference([math.inf] * 3, [math.inf] * 3).low)


def test_the_same_seed_gives_the_same_interval():
    """An interval in a report can be recomputed."""
    values = [3.1, 3.4, 2.9, 3.3, 3.8]
    assert interval(values, "mean", seed=4) == interval(values, "mean", seed=4)
    assert interval(values, "mean", seed=4) != interval(values, "mean", seed=5)
    found = interval(values)
    assert found.low <= found.estimate == 3.3 <= found.high


def test_an_unknown_statistic_or_confidence_is_refused():
    """The error names the value and the remedy."""
    with pytest.raises(SettingError, match=r"statistic is 'mode': choose"):
        interval([1.0], "mode")
    with pytest.raises(SettingError, match=r"confidence is 95: give a share"):
        interval([1.0], confidence=95)
