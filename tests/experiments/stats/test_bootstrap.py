"""Intervals over runs: as often right as they say, the same for the same seed, and honest about too little."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.stats.bootstrap import FEWEST_RUNS, Interval, interval
from pipeline.errors import SettingError


@pytest.mark.parametrize(("statistic", "n", "least"), [("mean", 6, 0.82), ("mean", 10, 0.87), ("median", 6, 0.88)])
def test_an_interval_holds_the_truth_about_as_often_as_documented(statistic: str, n: int, least: float):
    """Of 200 samples of normal values with mean and median 3, the stated share of intervals holds 3."""
    rng = np.random.default_rng(17)
    held = 0
    for _ in range(200):
        found = interval(rng.normal(3, 1, n), statistic)
        held += found.low <= 3 <= found.high
    assert least <= held / 200 <= 0.99


def test_the_interval_of_six_runs_is_not_their_range():
    """From the fewest runs on an interval says more than minimum and maximum."""
    rng = np.random.default_rng(20)
    for _ in range(20):
        runs = rng.normal(3, 1, FEWEST_RUNS)
        found = interval(runs)
        assert runs.min() <= found.low <= found.estimate <= found.high <= runs.max()
        assert (found.low, found.high) != (runs.min(), runs.max())


def test_few_runs_have_an_estimate_and_no_interval():
    """Below six runs only the dots can be shown; without any there is nothing; NaN is no run."""
    five = interval([1.0, 3.0, 2.0, 2.0, 2.0], "mean")
    assert five.estimate == 2
    assert five.n == 5
    assert math.isnan(five.low)
    assert math.isnan(five.high)
    assert interval([math.nan, 1.0, 2.0, 3.0], "mean").n == 3
    assert math.isnan(interval([]).estimate)
    assert interval([math.nan]).n == 0


def test_equal_values_are_a_point():
    """What never varied has an interval of no width."""
    assert interval([0.0] * 6) == Interval(0.0, 0.0, 0.0, 6)
    assert interval([math.inf] * 6) == Interval(math.inf, math.inf, math.inf, 6)


def test_missing_arrivals_widen_an_interval_to_infinity():
    """Two runs of seven without an arrival leave the median finite and its upper limit infinite."""
    found = interval([1.0, 2.0, 2.5, 3.0, 4.0, math.inf, math.inf])
    assert found.estimate == 3
    assert 1 <= found.low < 3
    assert found.high == math.inf
    assert interval([1.0, 2.0, 3.0, math.inf], "mean").estimate == math.inf


def test_the_same_seed_gives_the_same_interval():
    """An interval in a report can be recomputed."""
    values = [3.1, 3.4, 2.9, 3.3, 3.8, 3.3, 3.0]
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


@pytest.mark.parametrize("within", [0.0, 0.5, 0.95])
def test_interval_over_runs_holds_the_truth_whatever_their_windows_scatter(within: float) -> None:
    """A run's figure has the scatter of its windows, so that resampling runs alone covers it.

    400 campaigns of six runs with twenty windows; `within` is the share of a run's variance that its windows cause.
    """
    rng = np.random.default_rng(7)
    # Of the median of twenty normal values.
    of_median = math.sqrt(math.pi / 2 / 20)
    held = 0
    for _ in range(400):
        between = rng.normal(0, math.sqrt(1 - within), 6)
        windows = rng.normal(0, math.sqrt(within) / of_median, (6, 20))
        found = interval((between + np.median(windows, axis=1)).tolist())
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / 400 <= 0.98
