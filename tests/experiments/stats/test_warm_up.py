"""Warm-up: a drift that matters is found, one that is noise or too small is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.stats.warm_up import WarmUp, mser, warm_up

RNG = np.random.default_rng(23)


def test_steady_windows_are_seldom_blamed():
    """Of 200 steady runs of 20 noisy windows at most 6 % are called unsteady, and a slow window is no drift."""
    blamed = sum(warm_up(RNG.lognormal(-1.2, 0.1, 20)).steady is False for _ in range(200))
    assert blamed <= 12
    once = np.full(20, 0.3) + RNG.normal(0, 0.003, 20)
    once[19] = 4.0
    assert warm_up(once).steady


def test_a_drift_over_the_whole_run_is_found_and_no_warm_up_helps():
    """A rise by 30 % over the run is named with its size; cutting off windows would not make it steady."""
    found = warm_up(0.3 * np.linspace(1, 1.3, 24) + RNG.normal(0, 0.002, 24))
    assert found.steady is False
    assert found.needed_windows is None
    assert "rises by" in found.why
    assert "would not have helped" in found.why


def test_a_drift_too_small_to_matter_is_not_mentioned():
    """A rise of 3 % of the level is significant without noise, and still no finding."""
    assert warm_up(0.3 * np.linspace(1, 1.03, 24)).steady


@pytest.mark.parametrize("slow", [5, 7])
def test_a_cold_beginning_gives_the_missing_warm_up(slow: int):
    """The first windows are twice as slow and the rest is steady: their number is reported."""
    values = np.full(24, 0.3) + RNG.normal(0, 0.004, 24)
    values[:slow] *= 2
    found = warm_up(values)
    assert found.steady is False
    assert found.needed_windows is not None
    assert slow <= found.needed_windows <= slow + 2
    assert "above" in found.why
    assert f"After {found.needed_windows} more windows" in found.why


def test_too_few_windows_give_no_finding():
    """Seven windows, or seven that are finite, say neither steady nor unsteady."""
    assert warm_up([0.3] * 7) == WarmUp(None, "7 windows are too few for a test (8 are needed).", None)
    assert warm_up([0.3] * 7 + [math.nan, math.inf]).steady is None
    assert warm_up([0.3] * 8).steady


def test_mser_cuts_where_the_rest_is_most_certain():
    """The truncation is at the step, and 0 for a constant."""
    assert mser(np.array([9.0, 9.0, 9.0] + [1.0, 1.1] * 6)) == 3
    assert mser(np.full(10, 2.0)) == 0
