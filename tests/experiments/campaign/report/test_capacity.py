"""A capacity campaign on disk becomes a capacity with its interval, words that claim no more, and a curve."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments import run_files
from experiments.campaign.design import DOUBLED, is_doubled
from experiments.campaign.report import capacity, page
from experiments.campaign.report.dose_response import dose_response_figure
from experiments.stats import capacity as searching
from experiments.stats.capacity import Probe, Search, next_load
from experiments.synthetic import campaign
from pipeline.errors import SettingError

SEARCH = {"factor": "rate_per_s", "least": 1000, "most": 20000, "probes": 12}
EARLIER = {"factor": "rate_per_s", "start": 1000, "growth": 1.6, "most": 20000, "resolution": 0.15}


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


def test_search_on_disk_has_capacity_interval_and_probes(searched: Path):
    """The true capacity is inside the interval, which the headline states with how many probes passed."""
    found = capacity.read(searched)
    assert found.capacity.low is not None
    assert found.capacity.high is not None
    assert found.capacity.low < 3000 < found.capacity.high
    assert found.capacity.ended
    words = found.headline
    assert re.match(
        r"The chain meets every objective in nine runs of ten at [23],\d\d0\u00a0reactions/s \(95\u00a0% interval "
        r"\d,\d\d0 to \d,\d\d0\): (\d) of \1 probes below the interval, \d of \d probes in it and 0 of \d probes "
        r"above it passed\.",
        words,
    )
    below, within, above = (re.search(rf"(\d) of (\d) probes {at}", words) for at in ("below", "in it", "above"))
    assert sum(int(found[2]) for found in (below, within, above) if found) == 12
    assert {probe.why for probe in found.probes if not probe.passed} == {"e2e_excess_p99_s, headroom"}
    assert found.to_json()["headline"] == words


@pytest.fixture(scope="module")
def with_footprint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign of a search of which every second probe has the instrument's CPU doubled, which halves the load."""
    place, spec = tmp_path_factory.mktemp("footprint"), {**SEARCH, "footprint": 12}
    levels: list[dict[str, Any]] = []
    probes: dict[bool, list[Probe]] = {False: [], True: []}
    doubled = False
    while (load := next_load(Search(**SEARCH, seed=1 + doubled), probes[doubled])) is not None:
        levels.append({"rate_per_s": load, **(DOUBLED if doubled else {})})
        doubled = not doubled
        known = campaign.write_synthetic(
            place,
            levels=levels,
            search=spec,
            truth=lambda one: chain({"rate_per_s": one["rate_per_s"] * (2 if is_doubled(one) else 1)}),
            noise=0.001,
        )
        for kind in probes:
            runs = [run for run in known["runs"] if is_doubled(run["factors"]) == kind]
            probes[kind] = [Probe(run["factors"]["rate_per_s"], run["passed"], run["valid"]) for run in runs]
    return place


def test_footprint_is_part_of_the_capacitys_report(with_footprint: Path):
    """What the instrument takes is told by a second capacity, and stays out of the first and of every level."""
    found = capacity.read(with_footprint)
    assert found.footprint is not None
    assert found.footprint.ratio is not None
    assert 0.3 < found.footprint.ratio.low < 0.5 < found.footprint.ratio.high < 0.8
    assert (len(found.probes), len(found.footprint.probes)) == (12, 12)
    assert found.capacity.low is not None
    assert found.capacity.high is not None
    assert found.capacity.low < 3000 < found.capacity.high
    (words,) = [each for each in found.sentences() if "doubled" in each]
    assert re.match(
        r"With the instrument’s CPU doubled the capacity is 1,\d\d0\u00a0reactions/s, 0\.\d\d times as high "
        r"\(95\u00a0% interval 0\.\d\d to 0\.\d\d; twelve valid probes\)\. "
        r"The instrument takes from the capacity that it measures\.",
        words,
    )
    summary = page.read(with_footprint)
    assert words in summary.findings
    assert (len(summary.runs), len(summary.every)) == (12, 24)
    assert summary.plan.numeric
    text = page.render(with_footprint, summary)
    assert text.count("slow_stage=instrument") == 12


def test_footprint_of_few_probes_is_not_told(tmp_path: Path):
    """Fewer than six valid probes of either kind tell nothing."""
    levels = [{"rate_per_s": 2000}, {"rate_per_s": 2100, **DOUBLED}]
    campaign.write_synthetic(tmp_path, levels=levels, search={**SEARCH, "footprint": 6}, truth=chain, noise=0.001)
    assert (
        "The instrument’s footprint is not known yet: one valid probe had its CPU doubled, and 6 are the fewest."
        in capacity.read(tmp_path).sentences()
    )


def test_what_is_seen_above_the_capacity_names_no_stage_that_limits(searched: Path):
    """The cores in use are a fact; the sentence says that it names no cause, and how to find one."""
    found = capacity.read(searched)
    assert found.facts[0].what == "cpu"
    assert found.to_json()["shown_above"][0]["figures"]["cpu_share_spark"] > 0
    words = " ".join(found.sentences())
    assert re.search(r"There [12]\.\d\d.of 2 cores were in use: spark [\d.]+", words)
    assert "None of this says what limits the chain: that takes an intervention, `emostream limits`." in words
    assert "limiting stage" not in words
    assert "“p99 latency above the floor”" in words


def test_generator_at_its_limit_is_not_the_chain(tmp_path: Path):
    """INVALID probes leave the capacity without an upper end, and the reason is named."""
    faults = {index: {"reasons": ["The generator stalled."]} for index in (6, 7, 8)}
    levels = [{"rate_per_s": load} for load in (1000, 1600, 2000, 2200, 2400, 2560, 4096, 4096, 4096)]
    campaign.write_synthetic(tmp_path, levels=levels, search=SEARCH, faults=faults, truth=lambda _: {})
    found = capacity.read(tmp_path)
    assert found.capacity.high is None
    assert found.capacity.low is not None
    assert found.capacity.low <= 2560
    assert found.facts[0].what == "invalid"
    words = " ".join(found.sentences())
    assert "or more (lower end of the 95\u00a0% interval; the probes give no upper end)" in words
    assert "4,096\u00a0reactions/s and more are not measurable: the run was INVALID each time." in words
    assert "INVALID, and its figures are not those of the chain: The generator stalled." in words
    assert found.missed == ()


def test_unsteady_probes_count_for_neither_and_are_named(tmp_path: Path):
    """An UNSTEADY probe is no fail: the sentences say how many there were, and how many were INVALID."""
    faults = {1: {"changes": ["It fell."]}, 4: {"reasons": ["The clock stepped."]}}
    levels = [{"rate_per_s": load} for load in (1000, 1600, 2000, 2200, 2400, 2560, 2800, 3000)]
    campaign.write_synthetic(tmp_path, levels=levels, search=SEARCH, faults=faults, truth=lambda _: {})
    found = capacity.read(tmp_path)
    assert (found.capacity.probes, found.capacity.passed) == (6, 6)
    assert "Of eight runs one is invalid and one is unsteady." in " ".join(found.sentences())
    assert [probe.unsteady for probe in found.probes].index(True) == 1


def test_few_probes_give_counts_and_no_capacity(tmp_path: Path):
    """Three of four passed: that is all that is said."""
    levels = [{"rate_per_s": load} for load in (1000, 1600, 2560, 4096)]
    campaign.write_synthetic(tmp_path, levels=levels, search=SEARCH, truth=chain, noise=0.001)
    found = capacity.read(tmp_path)
    assert found.capacity.estimate is None
    assert found.headline == (
        "No capacity is stated yet: 3 of 4 probes at 1,000 to 4,096 passed, and 6 valid probes are the fewest for an "
        "interval."
    )
    assert "The search has not ended." in found.sentences()


def test_search_by_ramp_and_bisection_is_read_and_claims_less(tmp_path: Path):
    """A campaign of before keeps its probes; the report says that its error is not known, and it cannot be resumed."""
    loads = (1000, 1600, 2560, 4096, 3238, 2879, 2879, 3167)
    levels = [{"rate_per_s": load} for load in loads]
    campaign.write_synthetic(tmp_path, levels=levels, search=EARLIER, truth=chain, noise=0.001)
    found = capacity.read(tmp_path)
    assert [probe.load for probe in found.probes] == list(loads)
    assert found.capacity.low is not None
    assert found.capacity.high is not None
    assert found.capacity.low < 3000 < found.capacity.high
    assert not found.random
    assert capacity.RAMP in found.sentences()


def test_campaign_without_search_is_refused(tmp_path: Path):
    """Given the directory of another campaign, the error names it and the remedy."""
    campaign.write_synthetic(tmp_path, blocks=1)
    with pytest.raises(SettingError, match=r"is not a search for a capacity.*emostream sweep capacity"):
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


def test_figure_has_a_row_per_probe_and_the_curve(searched: Path):
    """The figure's data are the probes in order and the fitted curve; it is the same twice, and drawn with nothing
    probed too.
    """
    found = capacity.read(searched)
    text, data = dose_response_figure(found)
    probes, curve = (data[data["row"] == row] for row in ("probe", "curve"))
    assert list(probes["load"]) == [probe.load for probe in found.probes]
    assert set(probes["outcome"]) == {"pass", "fail"}
    assert (curve["low"] <= curve["passing"]).all()
    assert (curve["passing"] <= curve["high"]).all()
    assert curve["passing"].is_monotonic_decreasing
    for words in ("capacity", "offered load, reactions/s (log)", 'aria-label="Probes by load'):
        assert words in text
    assert dose_response_figure(found)[0] == text
    nothing = capacity.Found(found.search, (), searching.capacity(found.search, []), (), ())
    empty, rows = dose_response_figure(nothing)
    assert "No load was probed yet" in empty
    assert rows.empty
    few = tuple(Probe(load, load < 3000, load < 4000) for load in (1000.0, 3500.0, 5000.0))
    text, data = dose_response_figure(capacity.Found(found.search, few, searching.capacity(found.search, few), (), ()))
    assert set(data["outcome"]) == {"pass", "fail", "INVALID"}
    assert (data["row"] == "probe").all()
