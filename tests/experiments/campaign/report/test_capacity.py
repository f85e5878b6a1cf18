"""A capacity campaign on disk becomes an interval, a limiting stage in words, and a staircase."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments import run_files
from experiments.campaign.report import capacity
from experiments.campaign.report.staircase import staircase_figure
from experiments.stats import capacity as searching
from experiments.stats.capacity import Probe, Search, next_load
from experiments.synthetic import campaign
from pipeline.errors import SettingError

SEARCH = {"factor": "rate_per_s", "start": 1000, "growth": 1.6, "most": 20000, "resolution": 0.15}


def chain(factors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a chain that Spark limits to 3,000 reactions a second."""
    over = factors["rate_per_s"] > 3000
    return {
        "shift_s": 5.0 if over else 0.0,
        "cpu_share_spark": 1.3 if over else 0.6,
        "cpu_share_machine": 2.0 if over else 1.3,
    }


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign of a whole search, made probe by probe as a sweep makes it."""
    place, search = tmp_path_factory.mktemp("capacity"), Search(**SEARCH)
    levels: list[dict[str, Any]] = []
    probes: list[Probe] = []
    while (load := next_load(search, probes)) is not None:
        levels.append({"rate_per_s": load})
        known = campaign.write_synthetic(place, levels=levels, search=SEARCH, truth=chain, noise=0.001)
        probes = [Probe(run["factors"]["rate_per_s"], run["passed"], run["valid"]) for run in known["runs"]]
    return place


def test_search_on_disk_has_interval_and_limiting_stage(searched: Path):
    """The true capacity is inside the interval, confirmed, and Spark is named with its cores."""
    found = capacity.read(searched)
    assert found.capacity.highest_pass is not None
    assert found.capacity.lowest_fail is not None
    assert found.capacity.highest_pass <= 3000 < found.capacity.lowest_fail
    assert found.capacity.confirmed
    assert found.evidence[0].stage == "spark"
    assert "spark" in found.evidence[0].reason
    assert re.search(r"The machine is full: (1\.9|2\.0)\d of 2 cores", found.evidence[0].reason)
    words = " ".join(found.sentences())
    assert f"{found.capacity.highest_pass:,g}\u00a0reactions/s" in words
    assert "Spark" in words
    assert {probe.why for probe in found.probes if not probe.passed} == {"e2e_excess_p99_s, headroom"}


def test_generator_at_its_limit_is_not_the_chain(tmp_path: Path):
    """INVALID probes bound the capacity from below, and the instrument is named."""
    faults = {3: {"reasons": ["The generator stalled."]}, 4: {"reasons": ["The generator stalled."]}}
    levels = [{"rate_per_s": load} for load in (1000, 1600, 2560, 4096, 4096)]
    campaign.write_synthetic(tmp_path, levels=levels, search=SEARCH, faults=faults, truth=lambda _: {})
    found = capacity.read(tmp_path)
    assert found.capacity.highest_pass == 2560
    assert not found.capacity.bounded_above
    assert found.evidence[0].stage == "load"
    assert "INVALID (The generator stalled.)" in " ".join(found.sentences())
    assert found.missed == ()


@pytest.mark.parametrize(
    ("limit", "most", "words"),
    [
        (3000, 20000, "Both ends were measured at least twice."),
        (1900, 2000, "The highest load that passed was measured at least twice."),  # 2,000 failed, and once
        (9000, 2000, "The highest load that passed was measured at least twice."),  # nothing failed
    ],
)
def test_sentence_names_the_ends_that_were_measured_twice(limit: int, most: int, words: str):
    """The fail of a confirmed search was probed twice, once, or not at all."""
    search = Search(**SEARCH | {"growth": 2, "most": most})
    probes: list[Probe] = []
    while (load := next_load(search, probes)) is not None:
        probes.append(Probe(load, load <= limit))
    found = capacity.Found(search, tuple(probes), searching.capacity(search, probes), (), ())
    assert found.capacity.confirmed
    assert [sentence for sentence in found.sentences() if "measured at least twice" in sentence] == [words]


def test_load_that_passed_by_majority_says_in_how_many_runs() -> None:
    """A sentence claims no more than its probes: one of three missed an objective."""
    search = Search(**SEARCH)
    probes = tuple(Probe(load, passed) for load, passed in ((1000, True), (1000, False), (1000, True), (1100, False)))
    found = capacity.Found(search, probes, searching.capacity(search, probes), (), ())
    assert "carries 1,000\u00a0reactions/s with every objective met in 2 of 3 runs; at 1,100" in found.sentences()[0]


def test_campaign_without_search_is_refused(tmp_path: Path):
    """Given the directory of another campaign, the error names it and the remedy."""
    campaign.write_synthetic(tmp_path, blocks=1)
    with pytest.raises(SettingError, match=r"is not a search for a capacity.*designs/capacity\.yaml"):
        capacity.read(tmp_path)


def test_unknown_field_of_search_and_damaged_manifest_are_named(searched: Path, tmp_path: Path):
    """Damaged input is an error that names file and field."""
    place = shutil.copytree(searched, tmp_path / "damaged")
    manifest = next(place.glob("runs/*/manifest.json"))
    whole = manifest.read_text()
    manifest.write_text(whole[:20])
    with pytest.raises(run_files.RunFileError, match=r"manifest\.json is cut off or damaged"):
        capacity.read(place)
    manifest.write_text(whole)
    known = json.loads((place / "campaign.json").read_text())
    known["design"]["search"]["colour"] = "red"
    (place / "campaign.json").write_text(json.dumps(known))
    with pytest.raises(run_files.RunFileError, match=r"campaign\.json is damaged at `design\.search`: .*`colour`"):
        capacity.read(place)


def test_staircase_has_a_row_per_probe_and_names_the_interval(searched: Path):
    """The figure's data are the probes in order; the picture names highest pass and lowest fail; it is the same
    twice, and drawn with nothing probed too.
    """
    found = capacity.read(searched)
    text, data = staircase_figure(found.search, found.probes, found.capacity)
    assert list(data["load"]) == [probe.load for probe in found.probes]
    assert set(data["outcome"]) == {"pass", "fail"}
    for words in ("highest pass", "lowest fail", "offered load, reactions/s (log)", 'aria-label="The probes'):
        assert words in text
    assert staircase_figure(found.search, found.probes, found.capacity)[0] == text
    empty, rows = staircase_figure(found.search, [], searching.capacity(found.search, []))
    assert "No load was probed yet" in empty
    assert rows.empty
