"""A recorded run analysed again: the same figures from its files, and damage named before anything is touched."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from experiments import files, ledger
from experiments.bench import analysis as bench
from experiments.campaign import reanalyse
from experiments.campaign.state import Campaign
from experiments.report.run_page import write_report
from experiments.run import manifest
from experiments.run_files import RunFileError
from experiments.synthetic.run import make_run
from pipeline.errors import EmoStreamError

RUN = make_run(rate_per_s=15.0, measured_triggers=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a finished run, its report included."""
    place = tmp_path_factory.mktemp("finished") / "run"
    place.mkdir(parents=True)
    for name, frame in RUN.frames.items():
        files.to_parquet(frame, place / f"{name}.parquet")
    files.write_text(place / "manifest.json", json.dumps(RUN.manifest | {"parameters": RUN.parameters}))
    write_report(place, RUN.frames, RUN.parameters, RUN.manifest)
    return place


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of it to do harm to."""
    return shutil.copytree(finished, tmp_path / "runs" / "20261123T093000")


def state(folder):
    """Return every file below `folder` with its contents."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_alone_give_the_same_report(run_dir):
    """What the run's own analysis wrote and what its files give are the same, byte by byte."""
    before = state(run_dir)
    for path in (run_dir / "summary.json", run_dir / "verdict.json", run_dir / "report.html"):
        path.unlink()
    report = reanalyse.run(run_dir)
    assert report == run_dir / "report.html"
    assert {path for path, read in state(run_dir).items() if before.get(path) != read} <= {report}
    assert state(run_dir)[run_dir / "summary.json"] == before[run_dir / "summary.json"]


DESIGN = """\
name: tiny
about: One level.
seed: 3
blocks: 1
levels: [{users: 100}]
slos: {lost: 0}
"""


@pytest.fixture
def campaign(finished, tmp_path):
    """A campaign whose one run is finished."""
    (tmp_path / "tiny.yaml").write_text(DESIGN)
    begun = Campaign.open(tmp_path / "tiny.yaml", tmp_path)
    run = begun.pending()[0]
    place = begun.begin(run)
    shutil.copytree(finished, place, dirs_exist_ok=True)
    parameters = RUN.parameters | {"slos": json.dumps({"lost": 0})}
    files.write_text(place / "manifest.json", json.dumps(RUN.manifest | {"parameters": parameters}))
    reanalyse.run(place)
    begun.finish(run, place)
    return begun


def test_campaign_is_analysed_and_judged_again(campaign):
    """Each finished run's figures and verdict are written again, and campaign.json agrees with them."""
    assert campaign.state.runs[0].passed
    run_dir = campaign.directory / "runs" / campaign.state.runs[0].run
    before = (run_dir / "summary.json").read_bytes()
    (run_dir / "summary.json").unlink()
    deliveries = pd.read_parquet(run_dir / "deliveries.parquet")
    page = reanalyse.whole_campaign(campaign.directory)
    assert page == campaign.directory / "index.html"
    assert page.exists()
    assert (run_dir / "summary.json").read_bytes() == before
    files.to_parquet(deliveries.iloc[1:], run_dir / "deliveries.parquet")
    reanalyse.whole_campaign(campaign.directory)
    assert json.loads((campaign.directory / "campaign.json").read_text())["runs"][0]["passed"] is False


def test_campaign_without_frames_keeps_its_figures(campaign):
    """What a checkout keeps of the reference is enough for its report, and is not changed."""
    run_dir = campaign.directory / "runs" / campaign.state.runs[0].run
    for name in ledger.COLUMNS:
        (run_dir / f"{name}.parquet").unlink()
    before = state(run_dir)
    reanalyse.whole_campaign(campaign.directory)
    assert state(run_dir) == before


@pytest.mark.parametrize("name", [*(f"{name}.parquet" for name in ledger.COLUMNS), "manifest.json"])
@pytest.mark.parametrize(
    ("keep", "fault"), [(None, "is missing"), (0.5, "is cut off or damaged"), (0.0, "is (empty|cut off or damaged)")]
)
def test_damaged_run_is_named_and_not_changed(run_dir, name, keep, fault):
    """A file that is missing, half there or empty is named with what to do, and nothing else changes."""
    path = run_dir / name
    whole = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(whole[: int(len(whole) * keep)])
    before = state(run_dir)
    with pytest.raises(EmoStreamError, match=f"{name} {fault}.*measure again"):
        reanalyse.run(run_dir)
    assert state(run_dir) == before


def test_frame_that_is_not_the_one_of_the_run_is_named(run_dir):
    """It can be read, has every column, and differs: nothing is published from it."""
    about = json.loads((run_dir / "manifest.json").read_text())
    about["frames"] = manifest.frames(run_dir, ledger.COLUMNS)
    (run_dir / "manifest.json").write_text(json.dumps(about))
    reanalyse.run(run_dir)
    path = run_dir / "deliveries.parquet"
    files.to_parquet(pd.read_parquet(path).iloc[1:], path)
    before = state(run_dir)
    with pytest.raises(EmoStreamError, match=r"deliveries\.parquet is not the file that the run left: its SHA-256"):
        reanalyse.run(run_dir)
    assert state(run_dir) == before


def test_directory_without_a_run_is_named(tmp_path):
    """A path without a run, a manifest of something else, and one without parameters are named."""
    with pytest.raises(RunFileError, match="there is no directory"):
        reanalyse.run(tmp_path / "absent")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(RunFileError, match=r"manifest\.json is damaged: expected `object`, got `array`"):
        reanalyse.run(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(RunFileError, match=r"manifest\.json lacks `parameters`"):
        reanalyse.run(tmp_path)


def test_the_benchmark_measures_a_fresh_process():
    """The benchmark of the analysis says how many reactions, how long and how much memory."""
    figures = bench.analysis(reactions=3_000)
    of_ten = ["total_s_10m", "peak_rss_mb_10m"]
    assert list(figures) == ["reactions", "analyse_s", "report_s", "total_s", "peak_rss_mb", *of_ten]
    assert 2_500 < figures["reactions"] < 3_500
    assert figures["total_s"] > 0
    assert figures["peak_rss_mb"] > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("slos", "{"), ("slos", "3"), ("slos", '{"lost": "none"}'), ("slos", 5), ("grace_s", "nan"), ("trigger_s", None)],
)
def test_parameter_of_a_wrong_type_is_named(run_dir, name, value):
    """A manifest with such a parameter is an error of one line, and nothing is written."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    manifest["parameters"][name] = value
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    before = state(run_dir)
    with pytest.raises(EmoStreamError, match=f"parameter {name} is "):
        reanalyse.run(run_dir)
    assert state(run_dir) == before


def test_a_folder_of_campaigns_is_neither_a_run_nor_a_campaign(campaign, tmp_path):
    """The campaigns in it are named; a folder with none is told apart from a damaged run as well."""
    folder = tmp_path / "several"
    for name in ("window", "capacity"):
        (folder / name).mkdir(parents=True)
        shutil.copy(campaign.directory / "campaign.json", folder / name)
    with pytest.raises(
        RunFileError, match=r"several is neither a run nor a campaign: .*its campaigns are capacity, window$"
    ):
        reanalyse.report(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        RunFileError, match=r"empty is neither a run nor a campaign: give the directory of one of them$"
    ):
        reanalyse.report(tmp_path / "empty")
