"""Paired comparison: as often right as it says, blind to what the blocks share, and silent with too few blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from experiments.stats.paired import ALPHA, FEWEST_BLOCKS, POWER, detectable, effect, holm


def blocks(
    rng: np.random.Generator, n: int, ratio: float = 1.0, scatter: float = 0.1
) -> tuple[list[float], list[float]]:
    """Return `n` blocks of A and B that share a large effect of their block."""
    shared = np.exp(rng.normal(0, 1, n))
    a, b = (shared * np.exp(rng.normal(0, scatter, n)) for _ in range(2))
    return a.tolist(), (ratio * b).tolist()


def test_a_ratio_holds_the_truth_as_often_as_it_says() -> None:
    """Of 400 comparisons of six blocks 95 % of the intervals hold the true ratio, and 5 % of equal pairs differ."""
    rng = np.random.default_rng(1)
    held = wrong = 0
    for _ in range(400):
        found = effect(*blocks(rng, 6, ratio=1.3))
        held += found.low <= 1.3 <= found.high
        wrong += effect(*blocks(rng, 6)).p < ALPHA
    assert 0.92 <= held / 400 <= 0.98
    assert wrong / 400 <= 0.08


def test_what_the_blocks_share_cancels() -> None:
    """Blocks differ by a factor of e; pairs of 30 % are found all the same, where unpaired groups drown them."""
    rng = np.random.default_rng(2)
    a, b = blocks(rng, 8, ratio=1.3, scatter=0.05)
    found = effect(a, b)
    assert found.kind == "ratio"
    assert found.low > 1.1
    assert found.excludes_none
    assert stats.ttest_ind(a, b).pvalue > 0.3


def test_textbook_interval_of_differences() -> None:
    """By hand: differences 1 to 6 have mean 3.5, standard deviation 1.871, and t(0.975, 5) = 2.571."""
    found = effect([0.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert found.kind == "difference"
    assert found.estimate == pytest.approx(3.5)
    assert found.high - found.estimate == pytest.approx(2.5706 * 1.8708 / math.sqrt(6), rel=1e-3)
    assert effect([1.0] * 6, [2.0] * 6, difference=True).kind == "difference"


def test_fewer_than_six_blocks_state_nothing() -> None:
    """However far apart: an estimate, no interval and no p; the sixth block changes that."""
    found = effect([1.0] * 5, [9.0, 9.1, 9.2, 9.1, 9.0])
    assert found.estimate == pytest.approx(9.08, abs=0.01)
    assert math.isnan(found.low)
    assert math.isnan(found.p)
    assert math.isnan(detectable(found))
    assert not found.excludes_none
    assert effect([1.0] * 6, [9.0, 9.1, 9.2, 9.1, 9.0, 9.1]).excludes_none
    assert FEWEST_BLOCKS == 6


def test_equal_and_missing_blocks() -> None:
    """Equal in every block: no test. NaN: no block. A shift without scatter: the sign test."""
    equal = effect([2.0] * 6, [2.0] * 6)
    assert (equal.estimate, equal.low, equal.high) == (1, 1, 1)
    assert math.isnan(equal.p)
    assert effect([1.0, math.nan, 3.0], [1.0, 2.0, math.nan]).blocks == 1
    assert effect([math.nan], [1.0]).blocks == 0
    assert effect([2.0] * 6, [4.0] * 6).p == pytest.approx(2 / 2**6)
    with pytest.raises(ValueError, match="a has 1 values and b has 2"):
        effect([1.0], [1.0, 2.0])


def test_infinite_blocks_count_by_their_sign() -> None:
    """Never arrived in B: the sign test, and no interval."""
    found = effect([1.0] * 6, [math.inf] * 6)
    assert found.kind == "sign"
    assert found.p == pytest.approx(2 / 2**6)
    assert found.excludes_none
    assert math.isnan(found.low)
    assert math.isnan(detectable(found))
    assert math.isnan(effect([math.inf] * 6, [math.inf] * 6).p)


@pytest.mark.parametrize("comparisons", [1, 8])
def test_the_detectable_effect_is_found_as_often_as_it_says(comparisons: int) -> None:
    """Simulated: an effect of just that size passes the corrected test in about 80 % of 600 cases."""
    rng = np.random.default_rng(4)
    scatter = 0.1
    known = effect(*blocks(rng, 400, scatter=scatter))
    size = detectable(type(known)("ratio", 8, 1, 1, 1, 1, math.sqrt(2) * scatter), comparisons)
    found = sum(effect(*blocks(rng, 8, ratio=size, scatter=scatter)).p < ALPHA / comparisons for _ in range(600))
    assert found / 600 == pytest.approx(POWER, abs=0.06)
    assert known.sd == pytest.approx(math.sqrt(2) * scatter, rel=0.1)


def test_holm_is_the_textbook_one_and_ignores_what_was_not_tested() -> None:
    """Step-down, monotone, capped at 1; NaN neither counts nor changes."""
    corrected = holm(np.array([0.01, 0.04, math.nan, 0.03, 0.5]))
    assert corrected[[0, 1, 3, 4]] == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert math.isnan(corrected[2])
