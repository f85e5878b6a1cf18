"""The benchmark of the search: a few simulated searches have the error that the full benchmark states."""

from __future__ import annotations

import math

import pytest

from experiments.bench import search
from experiments.bench.search import REAL, Noise, simulated
from experiments.campaign import design_file
from experiments.repository import DESIGNS
from experiments.stats import capacity


def test_few_searches_with_real_noise_hold_the_truth() -> None:
    """Of 40 intervals nearly all hold the true capacity, and nearly no identical pair is called different."""
    of_design = design_file.unrehearsed(DESIGNS / "capacity.yaml").search_plan()
    figures = simulated(of_design, REAL, 40)
    assert figures["searches"] == 40
    assert figures["covered_share"] >= 0.9
    assert figures["false_difference_share"] <= 0.05
    assert figures["true_difference_share"] >= 0.4
    assert figures["width"] < 1.6


def test_intervals_that_are_too_narrow_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark convicts a procedure that claims too much: 20 % intervals called 95 % ones."""
    monkeypatch.setattr(capacity, "_TAILS", (0.4, 0.5, 0.6))
    figures = simulated(design_file.unrehearsed(DESIGNS / "capacity.yaml").search_plan(), REAL, 16)
    assert figures["covered_share"] < 0.6
    assert figures["false_difference_share"] > 0.3


@pytest.mark.parametrize("noise", [REAL, Noise(lapse=0.05), Noise(lapse=0, freedom=3)])
def test_true_capacity_is_where_nine_runs_of_ten_pass(noise: Noise) -> None:
    """The truth that intervals are compared with belongs to the noise that is drawn."""
    at = noise.capacity()
    assert noise.passing(at) == pytest.approx(0.9)
    assert noise.passing(at - 1) > 0.9 > noise.passing(at + 0.1)
    assert -0.5 < at < 0


def test_variants_change_one_thing_each() -> None:
    """Each variant differs from the real noise in at most the two fields that its name says."""
    for name, noise in search.VARIANTS.items():
        changed = [field for field in REAL.__dataclass_fields__ if getattr(noise, field) != getattr(REAL, field)]
        assert 1 <= len(changed) <= 2, name
    assert math.isinf(REAL.freedom)
