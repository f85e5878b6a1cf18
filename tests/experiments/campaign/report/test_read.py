"""Reading a campaign back: one row per finished run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from experiments.campaign.report import read
from experiments.synthetic.campaign import write_synthetic


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A finished synthetic campaign of three levels and two blocks."""
    place = tmp_path / "concurrency"
    write_synthetic(place, blocks=2)
    return place


def test_each_finished_run_is_a_row_with_its_factors_and_figures(campaign: Path):
    """Each finished run is a row, in the order of execution, and carries its factors and its whole summary."""
    table = read.runs(campaign)
    assert list(table["index"]) == list(range(6))
    assert read.factors(table) == ["users", "rate_per_s", "clients"]
    assert sorted(table["factor_users"]) == [1, 1, 100, 100, 400, 400]
    for block, rows in table.groupby("block"):
        assert sorted(rows["factor_users"]) == [1, 100, 400], f"block {block} is not complete"
    summary = json.loads((campaign / "runs" / table["run"][0] / "summary.json").read_text())
    assert set(summary) <= set(table.columns)
    assert table["valid"].all()
    assert table["passed"].all()
    assert table["e2e_excess_p99_s"].nunique() == 6


def test_inf_and_null_become_infinity_and_nan(tmp_path: Path):
    """The texts of strict JSON become numbers."""
    faults = {0: {"e2e_p99_s": math.inf}, 1: {"lag_slope_per_s": math.nan}, 2: {"reasons": ["The clock stepped."]}}
    write_synthetic(tmp_path, blocks=1, faults=faults)
    table = read.runs(tmp_path)
    assert table["e2e_p99_s"][0] == math.inf
    assert math.isnan(table["lag_slope_per_s"][1])
    assert list(table["valid"]) == [True, True, False]
    assert table["reasons"][2] == ["The clock stepped."]


def test_unfinished_campaign_has_rows_of_finished_runs(tmp_path: Path):
    """Planned runs give no rows; without a finished run the table is empty."""
    write_synthetic(tmp_path / "some", blocks=1, unfinished=1)
    assert len(read.runs(tmp_path / "some")) == 2
    write_synthetic(tmp_path / "none", blocks=1, unfinished=3)
    table = read.runs(tmp_path / "none")
    assert table.empty
    assert list(table.columns) == list(read.COLUMNS)
