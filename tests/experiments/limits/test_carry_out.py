"""The command: which runs it plans, what it refuses, and that it resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import __main__ as command_line
from experiments.campaign import design_file
from experiments.campaign.design import order
from experiments.limits import carry_out
from experiments.limits.plan import planned
from experiments.repository import DESIGNS
from experiments.synthetic.campaign import write_synthetic
from pipeline.errors import SettingError

DESIGN = DESIGNS / "limits.yaml"
KEPT = {"load": None, "share": None, "blocks": None, "stages": None}


def test_each_block_slows_each_stage_once_on_the_same_reactions() -> None:
    """Seven blocks of six runs; the seed of the load is the block's, the order is drawn."""
    runs = order(planned(design_file.load(DESIGN), **KEPT))
    assert len(runs) == 42
    for block in range(1, 8):
        of_block = [run for run in runs if run.block == block]
        assert {run.parameters["slow_stage"] for run in of_block} == {
            *("none", "ingest", "kafka", "spark", "delivery", "instrument")
        }
        assert len({run.parameters["seed"] for run in of_block}) == 1
    assert len({tuple(run.level for run in runs if run.block == block) for block in range(1, 8)}) > 1


def test_options_replace_what_the_design_has() -> None:
    """The load, the share of the chain's stages, blocks and stages; the instrument stays doubled."""
    design = planned(design_file.load(DESIGN), load=2500.0, share=0.1, blocks=8, stages=["kafka", "instrument"])
    assert design.parameters["rate_per_s"] == 2500
    assert design.blocks == 8
    assert [(level["slow_stage"], level["slow_share"]) for level in design.levels] == [
        ("none", 0.1),
        ("kafka", 0.1),
        ("instrument", 0.5),
    ]
    assert design_file.parse(design_file.to_yaml(design), "limits.yaml") == design


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (
            "stages",
            ["spark", "flask"],
            "--stages names 'flask': use some of ingest, kafka, spark, delivery, instrument",
        ),
        ("stages", ["spark"], "--stages is 'spark': give two or more"),
        ("share", 0.0, "--share is 0: give more than 0, at most 0.9"),
        ("share", 0.95, "--share is 0.95: give more than 0, at most 0.9"),
        ("blocks", 5, "--blocks is 5: give 6 or more; fewer give no interval"),
        ("load", -1.0, "--load is -1: give reactions per second, more than 0"),
    ],
)
def test_a_bad_option_is_named_with_the_remedy(option: str, value: object, words: str) -> None:
    """Before anything starts."""
    with pytest.raises(SettingError, match=words):
        planned(design_file.load(DESIGN), **{**KEPT, option: value})


def test_another_design_is_refused() -> None:
    """One that slows no stage, and one that slows a stage at two levels."""
    with pytest.raises(SettingError, match="design duel does not slow stages: each level needs slow_stage"):
        planned(design_file.load(DESIGNS / "duel.yaml"), **KEPT)
    kafka, ingest = ("{slow_stage: kafka, slow_share: 0.2}", "{slow_stage: ingest, slow_share: 0.3}")
    text = DESIGN.read_text(encoding="utf-8").replace(kafka, ingest)
    with pytest.raises(SettingError, match="has 'ingest' as slow_stage of two levels: keep one"):
        planned(design_file.parse(text, "twice.yaml"), **KEPT)


def test_a_campaign_of_other_options_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same options go on where it was; others are refused, and the design that was stays."""
    swept: list[tuple[Path, str]] = []
    monkeypatch.setattr(carry_out, "sweep", lambda path, reports, name: swept.append((path, name)))
    monkeypatch.setattr(carry_out.page, "write", lambda directory: directory / "limits.html")
    directory = tmp_path / "limits"
    assert carry_out.limits(DESIGN, directory, load=2000) == directory / "limits.html"
    text = (directory / "design.yaml").read_text(encoding="utf-8")
    with pytest.raises(SettingError, match="was started with other options or another design"):
        carry_out.limits(DESIGN, directory, load=3000)
    carry_out.limits(DESIGN, directory, load=2000)
    assert (directory / "design.yaml").read_text(encoding="utf-8") == text
    assert swept == [(directory / "design.yaml", "limits")] * 2


def test_the_load_is_that_of_a_finished_search(tmp_path: Path) -> None:
    """Its estimate, with three digits; a search of something else, or without an estimate, is refused."""
    search = {"factor": "rate_per_s", "least": 1000, "most": 20000, "probes": 24}
    loads = [1000.0 * 1.1**step for step in range(24)]
    write_synthetic(
        tmp_path / "capacity",
        levels=[{"rate_per_s": load} for load in loads],
        search=search,
        truth=lambda factors: {"shift_s": 0.0 if factors["rate_per_s"] < 4000 else 3.0},
    )
    assert 3000 < carry_out.estimated(tmp_path / "capacity") < 5000
    write_synthetic(tmp_path / "short", levels=[{"rate_per_s": 1000.0}], search=search)
    with pytest.raises(SettingError, match=r"--capacity is .*short.*no estimate in reactions per second"):
        carry_out.estimated(tmp_path / "short")


def test_the_command_names_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    """`python -m experiments limits` ends with status 1 and the error, and leaves nothing."""
    for options, words in (
        (["--share", "1"], "experiments limits: --share is 1: give more than 0, at most 0.9"),
        (["--stages", "spark,web"], "experiments limits: --stages names 'web': use some of ingest"),
        (["--campaign", "../x"], "experiments limits: campaign is '../x'"),
    ):
        with pytest.raises(SystemExit) as ended:
            command_line.main(["limits", *options, "--reports", str(tmp_path)])
        assert words in str(ended.value)
    assert list(tmp_path.iterdir()) == []
