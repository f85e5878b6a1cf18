"""The effects of doses: planted ones are found in spite of blocks and of each other, with intervals that hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.stats.dose_effect import fit
from pipeline.errors import SettingError

DOSES = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4] * 2
BLOCKS = [1] * 6 + [2] * 6


def test_a_planted_effect_is_found_whatever_the_blocks_are() -> None:
    """Without noise the line is exact; a block that is slower as a whole has no effect."""
    response = [200 + 30 * dose + (500 if block == 2 else 0) for dose, block in zip(DOSES, BLOCKS, strict=True)]
    effect = fit({"dose": DOSES}, response, BLOCKS)["dose"]
    assert (effect.slope, effect.low, effect.high) == pytest.approx((30, 30, 30))
    assert effect.runs == 12
    assert effect.limit(10) == pytest.approx(1 / 3)


def test_two_doses_at_once_have_each_its_own_effect() -> None:
    """Alone, the first dose would be blamed for what the second did."""
    other = [0.3, 0.1, 0.0, 0.3, 0.5, 0.6, 0.0, 0.2, 0.2, 0.1, 0.7, 0.5]
    response = [30 * dose + 70 * beside for dose, beside in zip(DOSES, other, strict=True)]
    effects = fit({"dose": DOSES, "other": other}, response, BLOCKS)
    assert effects["dose"].slope == pytest.approx(30)
    assert effects["other"].slope == pytest.approx(70)
    assert fit({"dose": DOSES}, response, BLOCKS)["dose"].slope > 60


def test_an_effect_that_cannot_be_positive_has_no_limit() -> None:
    """What never adds latency may be as large as it likes."""
    assert fit({"dose": DOSES}, [-dose for dose in DOSES], BLOCKS)["dose"].limit(10) == math.inf


def test_the_interval_holds_the_truth_in_95_of_100() -> None:
    """Of 2,000 simulated campaigns, within four standard errors."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(2_000):
        other = rng.uniform(0, 1, 12)
        response = 40 * np.array(DOSES) + 25 * other + rng.normal(0, 9, 12) + np.repeat([0, 50], 6)
        effect = fit({"dose": DOSES, "other": list(other)}, list(response), BLOCKS)["dose"]
        held += effect.low <= 40 <= effect.high
    assert held / 2_000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2_000))


@pytest.mark.parametrize(
    ("dose", "response", "block", "message"),
    [
        ([0, 1, 2, math.inf], [1, 2, 3, 4], [1, 1, 1, 1], "not a finite number"),
        ([0, 1, 2, 3], [1, 2, math.nan, 4], [1, 1, 1, 1], "not a finite number"),
        ([0, 1, 2], [1, 2, 3], [1, 1, 1], "3 runs in 1 blocks: at least 4 are needed"),
        ([0, 0, 1, 1, 1], [1, 2, 3, 4, 5], [1, 1, 2, 2, 2], "within the blocks dose do not vary by themselves"),
    ],
)
def test_runs_that_show_no_effect_are_refused(
    dose: list[float], response: list[float], block: list[int], message: str
) -> None:
    """Each error says what is missing."""
    with pytest.raises(SettingError, match=message):
        fit({"dose": dose}, response, block)


def test_doses_that_always_come_together_are_refused() -> None:
    """Nothing says which of the two had the effect."""
    with pytest.raises(SettingError, match="dose and twice do not vary by themselves"):
        fit({"dose": DOSES, "twice": [2 * dose for dose in DOSES]}, DOSES, BLOCKS)
