"""The report of a campaign: correct sentences for known runs, a page without outside parts, and clear gaps."""

from __future__ import annotations

import html
import json
import math
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from experiments.analysis import hdr
from experiments.campaign.campaign_file import State
from experiments.campaign.report import page as campaign_page
from experiments.campaign.report import read, sentences
from experiments.campaign.report.estimates import derived, trend
from experiments.campaign.report.levels import Layout, layout
from experiments.campaign.report.spectra import merged
from experiments.report.format import NBSP
from experiments.run import notebook
from experiments.run.kernel import LocalKernel
from experiments.run_files import RunFileError
from experiments.synthetic import campaign

USERS = (1, 10, 50, 100, 200, 400)
LEVELS = [{"users": n, "rate_per_s": n, "clients": n} for n in USERS]
FIGURES = ["excess", "spectrum", "hops", "headroom", "faults", "accuracy", "order"]
VOID = {"meta", "br", "use", "path", "img", "line", "rect", "circle"}


def growing(factors):
    """A chain whose latency grows by 50 ms for each tenfold of users, and whose representation error falls."""
    return {"shift_s": 0.05 * math.log10(factors["users"]), "representation_error": 0.9 / factors["users"] ** 0.5}


def histograms(place: Path) -> None:
    """Give each run the histogram it would have left."""
    histogram = campaign.synthetic_run().end_to_end.histogram
    for run_dir in (place / "runs").iterdir():
        (run_dir / "summary" / "latency.hdr").write_text(hdr.encode(histogram) + "\n")


def written(place: Path, *, kept: bool = False, **options) -> str:
    """Write a synthetic campaign and its report; return the page, with plain spaces."""
    campaign.write_synthetic(place, **options)
    if kept:
        histograms(place)
    return campaign_page.write(place).read_text(encoding="utf-8").replace(NBSP, " ")


def state_of(about: dict) -> State:
    """Return the state that a campaign.json with these values has."""
    return msgspec.convert(about, State)


def lead(page: str) -> str:
    """The first paragraph of a page."""
    found = re.search(r'class="lead">(.*?)</p>', page, re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished campaign over users with one invalid run and one that lost reactions; its place and page."""
    place = tmp_path_factory.mktemp("reports") / "concurrency"
    faults = {4: {"reasons": ["The clock <stepped>."], "e2e_excess_p50_s": 99.0}, 7: {"lost": 3}}
    page = written(place, kept=True, levels=LEVELS, truth=growing, noise=0.004, faults=faults, blocks=6)
    return place, page


class Nesting(HTMLParser):
    """Checks that every opened element is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        """Note an opened element."""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Close the last one, which must be this."""
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element at {self.getpos()}"


def test_page_is_well_formed_and_ids_are_its_own(whole):
    """Elements nest; ids are unique and what refers to one finds it."""
    _, page = whole
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(ids)


def test_page_loads_nothing_from_elsewhere(whole):
    """No scripts, nothing loaded; each local link leads to a file (the README is the repository's)."""
    place, page = whole
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert "@import" not in page
    assert "url(http" not in page
    links = set(re.findall(r'href="([^"#]+)"', page)) - {"../README.md"}
    assert len(links) > 20
    assert [link for link in links if not (place / link).is_file()] == []


def test_every_figure_is_saved_with_its_data(whole):
    """Each figure the protocol asks for is in the page, and saved as SVG that is well-formed with a CSV beside it."""
    place, page = whole
    for name in FIGURES:
        ET.fromstring((place / "summary" / f"{name}.svg").read_text(encoding="utf-8"))
        assert not pd.read_csv(place / "summary" / f"{name}.csv").empty, name
        assert f'<figure id="{name}">' in page
    assert not re.findall(r"#0[0-9a-f]000[0-9a-f]", page), "a marker colour was left over"


def test_findings_are_right_for_known_runs(whole):
    """Number of runs, missed objectives and where, trends and their size, and faults of the counts."""
    _, page = whole
    text = lead(page)
    assert "36 runs are finished; one is invalid, and left out of every figure." in text
    assert "Of eight objectives seven hold at every level." in text
    assert "reactions lost (with 10 users: 3 instead of at most 0)" in text
    slope = re.search(r"the median’s excess grows by (\d+) ms \((\d+) to (\d+)\)", text)
    assert slope
    value, low, high = map(int, slope.groups())
    assert low <= 50 <= high
    assert abs(value - 50) < 8
    assert "From 1 user to 400 users" in text
    assert "three reactions lost in one run" in text
    assert re.search(r"4\.5 % off the counts with 400 users and (89|90|91) % with 1 user", text)


def test_invalid_run_is_named_and_left_out_of_every_figure(whole):
    """The invalid run's latency is not in summary or figures; its reason is in the page, as text."""
    place, page = whole
    for name in ("levels", *FIGURES):
        assert "99.0" not in (place / "summary" / f"{name}.csv").read_text()
    levels = pd.read_csv(place / "summary" / "levels.csv")
    assert (levels[levels["key"] == "e2e_excess_p50_s"]["most"] < 1).all()
    assert "The clock &lt;stepped&gt;." in page
    runs = pd.read_csv(place / "summary" / "runs.csv")
    assert len(runs) == 36
    assert (~runs["valid"]).sum() == 1


def test_levels_have_median_and_interval_over_runs(whole):
    """The table of levels is the medians of runs.csv, and every level of six runs has an interval about it.

    A percentile with few windows beyond it has none.
    """
    place, _ = whole
    runs = pd.read_parquet(place / "summary" / "runs.parquet")
    levels = pd.read_csv(place / "summary" / "levels.csv")
    for key in ("e2e_excess_p50_s", "batch_p95_s"):
        row = levels[(levels["label"] == 400) & (levels["key"] == key)].iloc[0]
        assert row["runs"] == 6
        of_level = runs[(runs["factor_users"] == 400) & runs["valid"]][key]
        assert row["median"] == pytest.approx(of_level.median())
        assert (row["least"], row["most"]) == (pytest.approx(of_level.min()), pytest.approx(of_level.max()))
        if key == "batch_p95_s":
            assert math.isnan(row["low"])
            assert math.isnan(row["high"])
        else:
            assert row["least"] - 1e-9 <= row["low"] <= row["median"] <= row["high"] <= row["most"] + 1e-9


def test_level_with_few_runs_has_warning_and_no_interval(whole):
    """A level with five valid runs has no interval and is named in the warnings."""
    place, page = whole
    assert "Levels with fewer than six valid runs:" in page
    levels = pd.read_csv(place / "summary" / "levels.csv")
    few = levels[(levels["runs"] == 5) & (levels["key"] == "e2e_excess_p50_s")]
    assert len(few) == 1
    assert few["low"].isna().all()
    assert levels.loc[(levels["runs"] == 6) & (levels["key"] == "e2e_excess_p50_s"), "low"].notna().all()


def test_report_written_again_is_identical(whole, tmp_path):
    """The report written again, from only the files that the repository keeps, is the same to the byte."""
    place, page = whole
    copy = tmp_path / "concurrency"
    kept = ("campaign.json", "manifest.json", "verdict.json", "summary.json", "latency.hdr")
    for path in place.rglob("*"):
        if path.name in kept:
            (copy / path.relative_to(place)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(place))
    again = campaign_page.write(copy).read_text(encoding="utf-8").replace(NBSP, " ")
    assert again == page


def test_spectrum_is_that_of_all_runs_merged(whole):
    """The merged histogram of a level holds every run's pairs, and its quantiles are those of the runs' own merged."""
    place, _ = whole
    one = campaign.synthetic_run().end_to_end.histogram
    paths = sorted((place / "runs").glob("*/summary/latency.hdr"))[:3]
    runs = pd.DataFrame({"negative": [0] * 3, "undelivered": [5, 0, 0], "reactions_measured": [one.reactions] * 3})
    both = merged(paths, runs)
    assert both.samples == 3 * one.samples + 5
    assert both.reactions == 3 * one.reactions
    own = replace(one.merged(one).merged(one), undelivered=5)
    for q in (0.0, 0.1, 0.5, 0.9, 0.99):
        assert both.quantile_s(q) == own.quantile_s(q)
    spectrum = pd.read_csv(place / "summary" / "spectrum.csv")
    assert list(spectrum["label"].unique()) == list(USERS)


def test_spectrum_has_the_excess_that_the_runs_kept(whole, tmp_path):
    """Quantiles of the excess, and only without them the difference of two quantiles; one run without is enough."""
    copy = shutil.copytree(whole[0], tmp_path / "concurrency")
    runs = sorted((copy / "runs").iterdir())
    excess = campaign.synthetic_run().excess.histogram()
    for run_dir in runs:
        (run_dir / "summary" / "excess.hdr").write_text(hdr.encode(excess) + "\n")
    kept = campaign_page.read(copy).drawings["spectrum"][1]
    assert kept["excess_s"].tolist() == [excess.quantile_s(q) for q in kept["quantile"]]
    (runs[0] / "summary" / "excess.hdr").unlink()
    rest = campaign_page.read(copy).drawings["spectrum"][1]
    changed = (rest["excess_s"] != kept["excess_s"]).groupby(rest["level"]).any()
    assert changed.sum() == 1
    differing = rest[rest["level"] == changed.idxmax()]
    assert differing["excess_s"].tolist() == (differing["observed_s"] - differing["floor_s"]).tolist()


def test_damaged_file_of_a_run_is_named_with_remedy(whole, tmp_path):
    """For each file of a finished run that is cut off, the error names the file and the remedy."""
    place, _ = whole
    for name in ("manifest.json", "verdict.json", "summary.json", "summary/latency.hdr"):
        copy = tmp_path / name.replace("/", "-") / "concurrency"
        shutil.copytree(place, copy)
        run_dir = sorted((copy / "runs").iterdir())[3]
        path = run_dir / name
        path.write_text(path.read_text()[:40])
        with pytest.raises(RunFileError, match=rf"{run_dir.name}.*{path.name}.*restore"):
            campaign_page.write(copy)


@pytest.mark.parametrize("fault", ["is empty", "cannot be read"])
def test_histogram_that_is_empty_or_a_directory_is_named(whole, tmp_path, fault):
    """The spectrum of a level is refused, and not drawn without that run or left out."""
    copy = shutil.copytree(whole[0], tmp_path / "concurrency")
    path = sorted((copy / "runs").iterdir())[3] / "summary" / "latency.hdr"
    path.unlink()
    path.touch() if fault == "is empty" else path.mkdir()
    with pytest.raises(RunFileError, match=rf"latency\.hdr {fault}.*restore"):
        campaign_page.write(copy)


def test_equal_levels_show_no_trend(tmp_path):
    """A chain that is the same at every level has no trend and no difference between levels."""
    text = lead(written(tmp_path, levels=LEVELS, noise=0.02, blocks=3, seed=2))
    assert "the runs do not show a trend of" in text
    assert "grows" not in text
    assert "All eight objectives hold at every level." in text
    assert "18 runs are finished, and all are valid." in text
    assert "the runs do not show a difference between levels" in text
    assert "was counted exactly once" in text


def measured(runs_a_level=6, **figures):
    """Valid runs over USERS with the latencies of `growing`, each figure moved by its function of the users."""
    rows = [
        {"level": str(n), "run": run, "block": run + 1, **{key: of(n) + 0.001 * run for key, of in figures.items()}}
        for n in USERS
        for run in range(runs_a_level)
    ]
    levels = pd.DataFrame({"level": list(map(str, USERS)), "x": list(map(float, USERS)), "planned": runs_a_level})
    levels = levels.assign(label=levels["level"], words=[f"{n} users" for n in USERS])
    return pd.DataFrame(rows), Layout("users", (), "users", True, True, levels, "100")


def test_infinite_figure_has_no_trend():
    """A slope without the infinite level would describe the healthy levels only."""
    valid, plan = measured(
        e2e_excess_p50_s=lambda n: 0.05 * math.log10(n),
        e2e_excess_p99_s=lambda n: 0.1 * math.log10(n) if n < 400 else math.inf,
        batch_p95_s=lambda n: 1.0,
    )
    found = trend(valid, plan, "e2e_excess_p99_s")
    assert math.isnan(found.slope)
    assert found.infinite == ("400",)
    (grows, given) = sentences._growth(valid, plan, searched=False)
    assert "the median’s excess grows by" in grows
    assert "p99" not in grows
    assert given == "No trend is given for the p99’s excess (infinite in runs with 400 users)."
    (silent, again) = sentences._growth(valid.assign(e2e_excess_p50_s=1.0), plan, searched=False)
    assert "the runs do not show a trend of the median’s excess and micro-batch time" in silent
    assert again == given


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (5, "; five runs are too few for an interval."),
        (6, " In brackets: 95 % intervals over six runs."),
    ],
)
def test_interval_needs_six_runs(runs, words):
    """With five runs the sentence states the medians and that there is no interval."""
    valid, plan = measured(runs, e2e_excess_p50_s=lambda n: 0.3, e2e_excess_p99_s=lambda n: 0.5)
    (text,) = sentences._latency(valid, plan)
    assert text.replace(NBSP, " ").endswith(words)


def test_equal_levels_are_rarely_called_different():
    """Of 60 campaigns over six equal levels few call the two ends different; six blocks find a true one."""
    rng = np.random.default_rng(23)
    valid, plan = measured(representation_error=lambda n: 0.0, tv_distance=lambda n: 0.1)
    claimed = 0
    for _ in range(60):
        (text,) = sentences._shown(valid.assign(representation_error=rng.normal(0.3, 0.02, len(valid))), plan)
        claimed += "the runs do not show a difference between levels" not in text
    assert claimed <= 6
    differing, plan = measured(6, representation_error=lambda n: 0.9 / n**0.5, tv_distance=lambda n: 0.1)
    (text,) = sentences._shown(differing, plan)
    assert "4.8 % off the counts with 400 users and 90 % with 1 user" in text.replace(NBSP, " ")


def test_unfinished_campaign_states_its_progress(tmp_path):
    """Badge, findings and order state what is finished and what is not; a level without a run is a row of dashes."""
    page = written(tmp_path, blocks=1, unfinished=1)
    assert "Two of three planned runs are finished so far, and all are valid." in lead(page)
    assert "Unfinished · 2 of 3 runs" in page
    assert "1 planned run is not finished yet" in page


@pytest.mark.parametrize("missing", [9, 0])
def test_campaign_without_valid_run_has_report(tmp_path, missing):
    """With no finished or no valid run, every figure says why it is empty."""
    faults = {index: {"reasons": ["no"]} for index in range(9)}
    page = written(tmp_path, unfinished=missing, faults=faults)
    assert ("none of the nine planned runs is finished" if missing else "none is valid") in lead(page).lower()
    assert "No valid run to check" in page
    for name in FIGURES:
        assert (tmp_path / "summary" / f"{name}.csv").is_file()


def test_one_level_has_neither_trend_nor_comparison(tmp_path):
    """The findings of a campaign with one level do not mention levels."""
    text = lead(written(tmp_path, levels=[{"users": 100}], blocks=5))
    assert "Median latency is" in text
    assert "From" not in text
    assert "at every level" not in text


def test_policies_are_laid_out_by_name_and_compared(tmp_path):
    """A factor with names for values gives an axis in the design's order; the most accurate policy is named."""
    error = {"ceil": 0.33, "floor": 0.82, "carry": 0.05, "stochastic": 0.11}
    levels = [{"policy": name} for name in error]
    page = written(
        tmp_path, levels=levels, blocks=6, truth=lambda factors: {"representation_error": error[factors["policy"]]}
    )
    assert re.search(r"\d\.\d % off the counts with policy carry and 8\d % with policy floor", lead(page))
    assert list(pd.read_csv(tmp_path / "summary" / "hops.csv")["label"].unique()) == list(error)


def test_several_factors_make_an_axis_of_their_values(tmp_path):
    """Where only several factors together tell levels apart, the label carries them all, in the design's order."""
    levels = [{"flush_ms": ms, "flush_phase": phase} for ms in (0, 500) for phase in ("aligned", "free")]
    about = campaign.write_synthetic(tmp_path, levels=levels)
    plan = layout(state_of(about))
    assert list(plan.levels["label"]) == ["0 · aligned", "0 · free", "500 · aligned", "500 · free"]
    assert plan.label == "flush interval, ms · flush phase"
    assert plan.main == "flush_ms=500, flush_phase=aligned"
    assert not plan.numeric


def test_axis_is_logarithmic_over_more_than_a_decade_and_main_has_most_blocks(tmp_path):
    """Users from 1 to 400 are a log axis on which rate and clients go along; the level run most often is quoted."""
    about = campaign.write_synthetic(tmp_path / "a", levels=LEVELS)
    about["order"].append({**about["order"][0], "index": 99})
    plan = layout(state_of(about))
    assert (plan.factor, plan.along, plan.log) == ("users", ("rate_per_s", "clients"), True)
    assert plan.main == about["order"][0]["level"]
    triggers = campaign.write_synthetic(tmp_path / "b", levels=[{"trigger_s": t} for t in (6, 2, 1)])
    plan = layout(state_of(triggers))
    assert plan.numeric
    assert not plan.log
    assert list(plan.levels["x"]) == [1, 2, 6]
    assert plan.words(plan.main) == f"T{NBSP}={NBSP}6{NBSP}s"


def test_a_level_whose_blocks_differ_keeps_the_order_of_the_design(tmp_path):
    """`blocks` of a level in a design is not a factor."""
    levels = [{"policy": "floor"}, {"policy": "ceil"}]
    about = campaign.write_synthetic(tmp_path, levels=levels)
    about["design"]["levels"] = [{"policy": "floor", "blocks": 5}, {"policy": "ceil"}]
    assert list(layout(state_of(about)).levels["label"]) == ["floor", "ceil"]


def test_infinite_latency_is_shown_as_never(tmp_path):
    """A p99 that is infinite in every run of a level reads "never", and misses its objective."""
    truth = {"e2e_p99_s": math.inf, "e2e_excess_p99_s": math.inf, "undelivered": 40}
    page = written(tmp_path, levels=[{"users": 100}], truth=lambda _: truth)
    assert "p99 latency above the floor (never instead of at most 2.00 s)" in lead(page)
    assert "99th percentile never" in lead(page)


def test_drift_of_the_machine_is_measured_over_the_runs(tmp_path):
    """Residuals in run order find a machine that slows by 10 ms per run, whatever the order of levels."""
    about = campaign.write_synthetic(tmp_path, noise=0.001, blocks=4)
    for row in about["runs"]:
        path = tmp_path / "runs" / row["run"] / "summary.json"
        summary = json.loads(path.read_text())
        path.write_text(json.dumps(summary | {"e2e_excess_p50_s": summary["e2e_excess_p50_s"] + 0.01 * row["index"]}))
    campaign_page.write(tmp_path)
    runs = derived(read.runs(tmp_path))
    residuals, drifts = campaign_page.in_order(runs)
    assert drifts["e2e_excess_p50_s"].slope_ms_per_min == pytest.approx(10, rel=0.15)
    assert drifts["e2e_excess_p50_s"].present
    assert residuals.groupby("level")["e2e_excess_p50_s"].mean().abs().max() < 1e-6


def test_different_commits_and_uncommitted_changes_are_warnings(tmp_path):
    """Runs of two commits, one of them dirty, give two warnings."""
    about = campaign.write_synthetic(tmp_path)
    for row, changes in zip(about["runs"][:2], ({"commit": "abc"}, {"dirty": True}), strict=True):
        path = tmp_path / "runs" / row["run"] / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    page = campaign_page.write(tmp_path).read_text(encoding="utf-8")
    assert "The runs are of different commits" in page
    assert "1 of 9 runs were made with uncommitted changes" in page


def test_search_states_capacity_and_its_probes(tmp_path):
    """Capacity in words and JSON, with the curve; a search ends by missing an objective, which is not a fault."""
    loads = (1000, 1600, 2560, 2024, 2024, 2226)
    search = {"factor": "rate_per_s", "least": 1000, "most": 5000, "probes": 6}
    page = written(
        tmp_path,
        levels=[{"rate_per_s": float(load)} for load in loads],
        truth=lambda factors: {"headroom": 0.2 if factors["rate_per_s"] < 2100 else 0.95},
        search=search,
    )
    text = lead(page)
    assert re.search(r"nine runs of ten at [12],\d\d0 reactions/s \(95 % interval [12],\d\d0 to 2,\d\d0\)", text)
    assert "probes in it" in text
    assert "The limiting stage" not in text
    capacity = json.loads((tmp_path / "summary" / "capacity.json").read_text())
    assert capacity["low"] < 2024 < capacity["high"]
    assert (len(capacity["probes"]), capacity["passed"]) == (6, 4)
    assert capacity["missed_above"] == ["headroom"]
    # Facts, and no stage that they would name.
    assert [fact["what"] for fact in capacity["shown_above"]] == ["cpu"]
    assert (tmp_path / "summary" / "dose_response.csv").is_file()
    assert "objectives missed" not in page


def test_closed_loop_is_labelled_and_has_scalability_law(tmp_path):
    """Closed-loop throughput has its fitted law, and its latency is marked as not comparable with an open loop."""

    def truth(factors):
        n = factors["users"]
        return {"accepted_per_s": 20 * n / (1 + 0.03 * (n - 1) + 2e-5 * n * (n - 1))}

    levels = [{"users": n} for n in USERS]
    about = campaign.write_synthetic(tmp_path, levels=levels, truth=truth, noise=0.01)
    about["design"]["parameters"]["loop"] = "closed"
    (tmp_path / "campaign.json").write_text(json.dumps(about))
    page = campaign_page.write(tmp_path).read_text(encoding="utf-8").replace(NBSP, " ")
    assert "Users who each wait for their answer achieve 20 reactions/s with 1 user" in lead(page)
    assert re.search(r"[23]\.\d % of the work is serial", lead(page))
    assert "<strong>Closed loop:</strong>" in page
    data = pd.read_csv(tmp_path / "summary" / "scalability.csv")
    assert set(data["key"]) == {"accepted_per_s", "usl"}


def test_closed_loop_over_clients_has_no_scalability_law(tmp_path):
    """Throughput against another number, such as clients, is given without a law of concurrency."""
    about = campaign.write_synthetic(tmp_path, levels=[{"clients": n} for n in USERS], blocks=1)
    about["design"]["parameters"]["loop"] = "closed"
    (tmp_path / "campaign.json").write_text(json.dumps(about))
    summary = campaign_page.read(tmp_path)
    assert "scalability" not in summary.drawings
    text = " ".join(summary.findings).replace(NBSP, " ")
    assert "Users who each wait for their answer achieve" in text
    assert "Scalability Law" not in text


def test_markup_in_a_campaign_stays_text(tmp_path):
    """A name, a sentence of the design or a level with markup in it is shown, not interpreted."""
    about = campaign.write_synthetic(tmp_path, levels=[{"trace": "<script>x</script>"}, {"trace": "b & c"}])
    about["design"]["about"] = "<img src=http://x>"
    about["abandoned"] = [{"index": 0, "run": "r", "why": "<b>cut</b>", "failed": False}]
    (tmp_path / "campaign.json").write_text(json.dumps(about))
    page = campaign_page.write(tmp_path).read_text(encoding="utf-8")
    for text in ("<script", "<img", "<b>cut"):
        assert text not in page
    assert "&lt;b&gt;cut" in page


@pytest.mark.parametrize("name", ["o'brien", "a (1)&b", "-x", "$HOME"])
def test_commands_of_a_page_are_quoted(tmp_path, name):
    """Whatever the campaign and the file of its design are called, a shell gives back the words."""
    about = campaign.write_synthetic(tmp_path, levels=LEVELS[:1])
    about |= {"campaign": name, "design_path": f"{name}.yaml"}
    (tmp_path / "campaign.json").write_text(json.dumps(about))
    commands = html.unescape(re.findall(r"<pre>(.*?)</pre>", written_again(tmp_path), re.DOTALL)[-1])
    report, sweep = (shlex.split(line) for line in commands.splitlines() if line and not line.startswith("#"))
    assert report == ["python", "-m", "experiments", "report", f"reports/{name}"]
    design = f"./{name}.yaml" if name.startswith("-") else f"{name}.yaml"
    assert sweep == ["python", "-m", "experiments", "sweep", design, f"--campaign={name}"]


def written_again(place: Path) -> str:
    """Return the page of a campaign, written from its files."""
    return campaign_page.write(place).read_text(encoding="utf-8")


def test_trend_is_zero_without_one_and_needs_an_axis():
    """A constant figure has slope zero; an axis of names has no trend at all."""
    levels = pd.DataFrame(
        {"level": ["a", "b"], "label": ["1", "9"], "words": ["1", "9"], "x": [1.0, 9.0], "planned": 3}
    )
    plan = Layout("users", (), "users", True, False, levels, "a")
    valid = pd.DataFrame({"level": ["a"] * 6 + ["b"] * 6, "k": [1.0] * 12})
    flat = trend(valid, plan, "k")
    assert flat.slope == 0
    assert not flat.supported
    rising = trend(valid.assign(k=np.where(valid["level"] == "a", 1.0, 9.0)), plan, "k")
    assert rising.slope == pytest.approx(1)
    names = Layout("policy", (), "policy", False, False, levels, "a")
    assert math.isnan(trend(valid, names, "k").slope)


def test_reports_readme_names_every_file_of_a_campaign(whole):
    """Each file below summary/ is named, with its origin."""
    readme = (Path(__file__).resolve().parents[4] / "reports" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## The files of a campaign")[2].partition("\n## ")[0]
    names = [path.name for path in (whole[0] / "summary").iterdir()]
    names += ["capacity.json", "dose_response.svg", "scalability.svg"]
    assert [name for name in names if not re.search(rf"[`/]{re.escape(name)}`", section)] == []


def test_notebook_shows_findings_levels_and_figures(whole, tmp_path):
    """notebooks/sweep.ipynb, executed by papermill on a campaign, shows what the page shows."""
    source = Path(__file__).resolve().parents[4] / "notebooks" / "sweep.ipynb"
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        str(source),
        str(executed),
        {"campaign": str(whole[0])},
        cwd=str(source.parent.parent),
        progress_bar=False,
        kernel_name="python3",
        kernel_manager_class=LocalKernel,
    )
    shown = str([cell.get("outputs") for cell in nbformat.read(executed, as_version=4).cells])
    assert "one is invalid, and left out of every figure" in shown
    assert shown.count("image/svg+xml") == len(FIGURES)
    assert notebook.checked(source, {"campaign": "x"}) == {"campaign": "x"}
