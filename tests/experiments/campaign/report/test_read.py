"""Reading a campaign back: a row a run, and a clear word about what is missing or cut off."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from experiments.campaign.report import read
from experiments.synthetic import campaign as synthetic_campaign
from pipeline.errors import SettingError


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A finished synthetic campaign of three levels and two blocks."""
    place = tmp_path / "concurrency"
    synthetic_campaign.write_synthetic(place, blocks=2)
    return place


def test_a_row_a_run_with_its_factors_and_every_figure(campaign: Path):
    """Each finished run is a row, in the order that happened, and carries its factors and its whole summary."""
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


def test_what_never_arrived_is_infinite_and_what_was_not_measured_is_nan(tmp_path: Path):
    """The texts of strict JSON become figures again."""
    faults = {0: {"e2e_p99_s": math.inf}, 1: {"lag_slope_per_s": math.nan}, 2: {"reasons": ["The clock stepped."]}}
    synthetic_campaign.write_synthetic(tmp_path, blocks=1, faults=faults)
    table = read.runs(tmp_path)
    assert table["e2e_p99_s"][0] == math.inf
    assert math.isnan(table["lag_slope_per_s"][1])
    assert list(table["valid"]) == [True, True, False]
    assert table["reasons"][2] == ["The clock stepped."]


def test_a_campaign_cut_short_has_the_rows_it_has(tmp_path: Path):
    """Planned runs that are not finished are no rows; with none finished there is an empty table."""
    synthetic_campaign.write_synthetic(tmp_path / "some", blocks=1, unfinished=1)
    assert len(read.runs(tmp_path / "some")) == 2
    synthetic_campaign.write_synthetic(tmp_path / "none", blocks=1, unfinished=3)
    table = read.runs(tmp_path / "none")
    assert table.empty
    assert list(table.columns) == list(read.COLUMNS)


def test_a_directory_that_is_no_campaign_says_so(tmp_path: Path):
    """Without campaign.json the error names the directory and how to make one."""
    with pytest.raises(SettingError, match=r"is no campaign.*experiments sweep"):
        read.runs(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "campaign.json is cut off or damaged"),
        ('{"campaign": "x", "runs": [{"ind', "campaign.json is cut off or damaged"),
        ("[]", "campaign.json holds list"),
        ('{"campaign": "x", "design": {}, "order": []}', "lacks 'runs'"),
        ('{"campaign": 7, "design": {}, "order": [], "runs": []}', "campaign is 7: expected str"),
        ('{"campaign": "x", "design": {}, "order": [], "runs": [3]}', r"runs\[0\] is 3"),
        ('{"campaign": "x", "design": {}, "order": [], "runs": [{"index": 0}]}', r"runs\[0\] lacks 'run'"),
    ],
)
def test_a_damaged_campaign_names_the_file_and_the_field(tmp_path: Path, text: str, words: str):
    """Whatever is wrong with campaign.json, the error says where and what to do."""
    (tmp_path / "campaign.json").write_text(text)
    with pytest.raises(SettingError, match=rf"campaign\.json.*{words.removeprefix('campaign.json ')}.*sweep anew"):
        read.about(tmp_path)


def test_a_run_cut_off_in_the_middle_of_a_write_is_named(campaign: Path):
    """A summary.json that ends in the middle, or is not there, names the run and the remedy; others are unharmed."""
    run = read.about(campaign)["runs"][3]["run"]
    path = campaign / "runs" / run / "summary.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(SettingError, match=rf"{run}.summary\.json is cut off.*sweep again"):
        read.runs(campaign)
    path.unlink()
    with pytest.raises(SettingError, match=rf"run {run} as finished, but .* is missing.*sweep again"):
        read.runs(campaign)
    path.write_text(whole)
    assert len(read.runs(campaign)) == 6
