"""The demand of a load: the least cores that carry it in every run, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import __main__ as command_line
from experiments.campaign import design_file
from experiments.limits import demand
from experiments.repository import DESIGNS
from experiments.synthetic.campaign import write_synthetic
from pipeline.errors import EmoStreamError, SettingError

DESIGN = DESIGNS / "demand.yaml"
STEPPED = {"reasons": ["The clock stepped."]}


def campaign(folder: Path, misses: dict[float, int], **more: Any) -> Path:
    """Write a campaign in which so many of three runs miss an objective, by the number of cores."""
    levels = [{"chain_cores": cores} for cores in (1.5, 1.0, 0.75, 0.5)]
    missed: dict[float, int] = dict.fromkeys(misses, 0)

    def truth(factors: Any) -> dict[str, Any]:
        cores = factors["chain_cores"]
        missed[cores] = missed.get(cores, 0) + 1
        return {"headroom": 1.5 if missed[cores] <= misses.get(cores, 0) else 0.2}

    write_synthetic(folder / "demand", levels=levels, truth=truth, **more)
    path = folder / "demand" / "campaign.json"
    about = json.loads(path.read_text())
    about["design"]["parameters"]["rate_per_s"] = 1000.0
    path.write_text(json.dumps(about))
    return folder / "demand"


def test_the_least_cores_that_carry_the_load_in_every_run(tmp_path: Path) -> None:
    """One miss of three is not carrying; page, JSON and CSV agree."""
    page = demand.write(campaign(tmp_path, {0.75: 1, 0.5: 3}))
    result = json.loads((tmp_path / "demand" / "demand.json").read_text())
    assert result["least_cores"] == 1.0
    assert "1 is the least with which the chain carried 1,000 reactions per second" in result["finding"]
    assert "in every run (3 of 3); with 0.75, 2 of 3 did" in result["finding"]
    assert [row["passed"] for row in result["tried"]] == [3, 3, 2, 0]
    assert result["tried"][0]["used"] == pytest.approx(0.82, rel=0.1)
    text = page.read_text(encoding="utf-8")
    assert result["finding"] in text
    assert "<script" not in text


def test_a_level_that_passes_below_one_that_fails_is_not_the_demand(tmp_path: Path) -> None:
    """Chance: 0.5 cores pass and 0.75 do not; the demand is above both."""
    demand.write(campaign(tmp_path, {0.75: 1}))
    assert json.loads((tmp_path / "demand" / "demand.json").read_text())["least_cores"] == 1.0


def test_a_load_that_no_number_of_cores_carries(tmp_path: Path) -> None:
    """The sentence says so, with the most that were tried; without any valid run nothing is written."""
    directory = campaign(tmp_path, {1.5: 1, 1.0: 3, 0.75: 3, 0.5: 3})
    demand.write(directory)
    result = json.loads((directory / "demand.json").read_text())
    assert result["least_cores"] is None
    assert "with 1.5, the most, 2 of 3 runs met every objective" in result["finding"]
    invalid = campaign(tmp_path / "other", {}, faults=dict.fromkeys(range(12), STEPPED))
    with pytest.raises(EmoStreamError, match="no run was valid at 1,000 reactions per second"):
        demand.write(invalid)


def test_options_of_the_demand(tmp_path: Path) -> None:
    """Load and blocks replace the design's; what slows a stage has no meaning here."""
    design = demand.planned(design_file.load(DESIGN), load=500.0, blocks=2)
    assert (design.parameters["rate_per_s"], design.blocks) == (500.0, 2)
    for values, words in (
        ({"load": 0.0, "blocks": None}, "--load is 0: give reactions per second, more than 0"),
        ({"load": None, "blocks": 0}, "--blocks is 0: give a whole number from 1"),
    ):
        with pytest.raises(SettingError, match=words):
            demand.planned(design_file.load(DESIGN), **values)
    with pytest.raises(SettingError, match="design duel does not vary chain_cores alone"):
        demand.planned(design_file.load(DESIGNS / "duel.yaml"), load=None, blocks=None)
    with pytest.raises(SystemExit, match="--share has no meaning with --demand"):
        command_line.main(["limits", "--demand", "--share", "0.2", "--reports", str(tmp_path)])
