"""The Universal Scalability Law: known parameters come back, and three levels are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.stats.usl import _fit, fit, lack_of_fit, throughput
from pipeline.errors import SettingError

LEVELS = np.repeat([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0], 3)


def test_the_law_is_gunthers():
    """By hand: ten users of 40 a second each, at 3 % contention and 0.02 % coherency, reach 400 / 1.288."""
    assert throughput(np.array([1.0, 10.0]), 40.0, 0.03, 0.0002) == pytest.approx([40.0, 400 / 1.288])


def test_exact_points_give_back_their_parameters():
    """Without noise the fit is the law itself: parameters, peak and all."""
    found = fit(LEVELS, throughput(LEVELS, 40.0, 0.03, 0.0002))
    assert found.lambda_ == pytest.approx(40, rel=1e-3)
    assert found.sigma == pytest.approx(0.03, rel=1e-2)
    assert found.kappa == pytest.approx(0.0002, rel=1e-2)
    assert found.peak_n == pytest.approx(math.sqrt(0.97 / 0.0002), rel=0.01)


def test_intervals_hold_the_truth_of_noisy_runs():
    """Of 8 campaigns with 3 % noise, the intervals hold each true parameter in at least 6."""
    rng = np.random.default_rng(29)
    truth = {"lambda_": 40.0, "sigma": 0.03, "kappa": 0.0002}
    held = dict.fromkeys(truth, 0)
    for seed in range(8):
        noisy = throughput(LEVELS, **truth) * np.exp(rng.normal(0, 0.03, len(LEVELS)))
        found = fit(LEVELS, noisy, seed)
        for name, value in truth.items():
            held[name] += found.intervals[name][0] <= value <= found.intervals[name][1]
    assert min(held.values()) >= 6, held


def test_runs_that_follow_the_law_are_rarely_said_not_to() -> None:
    """Of 100 campaigns with 3 % noise, about five have a p-value below 5 %."""
    rng = np.random.default_rng(31)
    truth = throughput(LEVELS, 40.0, 0.03, 0.0002)
    alarms = 0
    for _ in range(100):
        noisy = truth * np.exp(rng.normal(0, 0.03, len(LEVELS)))
        alarms += lack_of_fit(LEVELS, noisy, throughput(LEVELS, *_fit(LEVELS, noisy))) < 0.05
    assert alarms <= 12


def test_runs_that_do_not_follow_the_law_are_found() -> None:
    """A wall: throughput that grows with the users up to 20 of them, and is constant above."""
    wall = 40.0 * np.minimum(LEVELS, 20.0)
    assert fit(LEVELS, wall * np.tile([0.97, 1.0, 1.03], 8)).lack_of_fit < 0.001
    # Without scatter there is nothing to divide by.
    assert fit(LEVELS, wall).lack_of_fit == 0
    assert fit(LEVELS, throughput(LEVELS, 40.0, 0.03, 0.0002)).lack_of_fit == 1


def test_one_run_per_level_says_nothing_about_the_fit() -> None:
    """Scatter is not known then, nor with as many levels as parameters."""
    levels = np.array([1.0, 2.0, 5.0, 10.0])
    assert math.isnan(fit(levels, 10 * levels).lack_of_fit)
    assert math.isnan(lack_of_fit(np.repeat(levels[:3], 2), np.ones(6), np.ones(6)))


def test_linear_scaling_has_no_peak():
    """Throughput in proportion to concurrency has neither contention nor coherency, and no peak."""
    found = fit([1, 2, 4, 8], [10.0, 20.0, 40.0, 80.0])
    assert found.lambda_ == pytest.approx(10, rel=1e-3)
    assert found.sigma == pytest.approx(0, abs=1e-4)
    assert found.kappa == pytest.approx(0, abs=1e-5)
    assert found.peak_n > 1000


def test_the_same_seed_gives_the_same_intervals():
    """An interval in a report can be recomputed."""
    noisy = throughput(LEVELS, 40.0, 0.03, 0.0002) * np.tile([0.98, 1.0, 1.02], 8)
    assert fit(LEVELS, noisy, 3) == fit(LEVELS, noisy, 3)


@pytest.mark.parametrize(
    ("concurrency", "measured", "words"),
    [
        ([1, 2, 2, 4], [1.0, 2.0, 2.0, 4.0], r"concurrency has 3 distinct levels \(1, 2, 4\).*4 or more"),
        ([1, 2, 4, 8], [1.0, 2.0, 4.0], "4 levels of concurrency and 3 throughputs"),
        ([0, 2, 4, 8], [1.0, 2.0, 4.0, 8.0], "concurrency has .*above 0"),
        ([1, 2, 4, 8], [1.0, 2.0, math.nan, 8.0], "throughput has .*finite"),
    ],
)
def test_points_that_cannot_be_fitted_are_refused(concurrency: list[int], measured: list[float], words: str):
    """The error names what is wrong with the points."""
    with pytest.raises(SettingError, match=words):
        fit(concurrency, measured)
