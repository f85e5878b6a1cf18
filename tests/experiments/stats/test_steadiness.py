"""Steadiness: a change of the windows that matters is found, one that is noise or too small is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.stats.steadiness import FEWEST_WINDOWS, settled, steadiness

NAME = "The time"
RNG = np.random.default_rng(23)


def series(count: int, sd_s: float = 0.005, level_s: float = 0.3) -> np.ndarray:
    """Return `count` values with heavy tails about a level, s."""
    return level_s + sd_s * RNG.standard_t(3, count) / math.sqrt(3)


def test_steady_noisy_windows_are_seldom_called_unsteady():
    """Of 60 steady runs of 20 windows that scatter by a quarter of their level, at most 3 are unsteady."""
    assert sum(steadiness(NAME, series(20, 0.08)).steady is False for _ in range(60)) <= 3


def test_one_slow_window_is_no_change():
    """A single window of 4 s among twenty of 0.3 s leaves a run steady."""
    values = series(20)
    values[11] = 4.0
    assert steadiness(NAME, values).steady


@pytest.mark.parametrize("shape", [np.linspace(0, 0.12, 20), np.where(np.arange(20) < 8, 0.06, 0)])
def test_trend_and_step_are_found_with_their_size(shape: np.ndarray):
    """A trend of 120 ms and a step of 60 ms make the run unsteady; the sentence has the medians on either side."""
    found = steadiness(NAME, series(20) + shape)
    assert found.steady is False
    assert found.shift_s > 0.045
    assert found.why.startswith("The time changed during the measurement: by window, 3")
    assert [one.first for one in found.segments] == [1, *(one.last + 1 for one in found.segments[:-1])]
    assert found.segments[-1].last == 20


@pytest.mark.parametrize(("level_s", "step_s"), [(0.2, 0.022), (2.0, 0.15)])
def test_change_below_30_ms_or_a_tenth_of_the_level_is_named_and_does_not_count(level_s: float, step_s: float):
    """A step that ranks find without doubt, but that is too small to matter, leaves the run steady."""
    found = steadiness(NAME, series(20, 0.001, level_s) + np.where(np.arange(20) < 10, step_s, 0))
    assert found.steady
    assert len(found.segments) == 2
    assert "too little to matter" in found.why


def test_too_few_windows_give_no_finding():
    """With fewer windows than the test needs it is not known; windows that never arrived do not count."""
    found = steadiness(NAME, [*series(FEWEST_WINDOWS - 1), math.inf, math.nan])
    assert found.steady is None
    assert f"{FEWEST_WINDOWS - 1} windows are too few" in found.why
    assert steadiness(NAME, []).shift_s == 0


def test_equal_values_are_steady():
    """Values without any scatter have equal ranks, and no change."""
    assert steadiness(NAME, [0.2] * 20).steady


def test_warm_up_has_ended_only_after_a_cold_beginning():
    """While the last windows become faster a warm-up goes on; after as many steady ones it has ended."""
    cold = [5.0, 1.4, 0.9, 0.6, 0.45, 0.4]
    assert not settled(cold)
    assert not settled([*cold, 0.35])
    assert settled([*cold, 0.30, 0.31, 0.29, 0.30, 0.31, 0.30, 0.29, 0.30])


def test_warm_up_of_few_windows_has_not_ended():
    """Five windows are too few to tell, however alike they are."""
    assert not settled([0.3] * 5)
    assert settled([0.3] * 6)
