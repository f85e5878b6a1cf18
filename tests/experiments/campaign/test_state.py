"""A campaign survives a kill at any moment: finished runs are kept, the one cut off is repeated under a new id."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from experiments.campaign.design import Planned
from experiments.campaign.state import Campaign
from pipeline.errors import EmoStreamError, SettingError

TEXT = """\
name: tiny
about: Two levels.
seed: 3
blocks: 2
levels: [{users: 10}, {users: 50}]
slos: {lost: 0}
"""
SEARCH = """\
name: tiny
about: A search.
search: {factor: rate_per_s, least: 100, most: 1600, probes: 8}
slos: {lost: 0}
"""


@pytest.fixture
def design(tmp_path: Path) -> Path:
    """The path of a small design."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


def leave(run_dir: Path, *, valid: bool = True, passed: bool = True, bad: str = "INVALID") -> None:
    """Leave the verdict that a run would; `bad` is that of one which is not valid."""
    reasons = [] if valid else ["The clock stepped."]
    verdict = {"verdict": "VALID" if valid else bad, "passed": passed and valid, "reasons": reasons}
    (run_dir / "verdict.json").write_text(json.dumps(verdict))


def carry_out(campaign: Campaign, *, valid: bool = True, passed: bool = True, bad: str = "INVALID") -> Planned:
    """Carry out the next run as if by a notebook; return it."""
    run = campaign.pending()[0]
    run_dir = campaign.begin(run)
    leave(run_dir, valid=valid, passed=passed, bad=bad)
    campaign.finish(run, run_dir)
    return run


def test_runs_follow_the_plan_and_the_end_is_recorded(design: Path, tmp_path: Path) -> None:
    """Every run is made once, in the order planned; then the campaign has an end."""
    campaign = Campaign.open(design, tmp_path)
    done = [carry_out(campaign).index for _ in range(4)]
    assert done == [0, 1, 2, 3]
    assert campaign.complete
    assert campaign.state.ended is not None
    assert campaign.directory == tmp_path / "tiny"


def test_a_kill_in_the_middle_of_a_run_repeats_that_run_alone(design: Path, tmp_path: Path) -> None:
    """What was finished is kept, the run under way is abandoned and made again under a new id."""
    campaign = Campaign.open(design, tmp_path)
    carry_out(campaign)
    cut_off = campaign.begin(campaign.pending()[0])
    again = Campaign.open(design, tmp_path)
    assert [run.index for run in again.state.runs] == [0]
    assert [(one.index, one.run, one.failed) for one in again.state.abandoned] == [(1, cut_off.name, False)]
    assert again.pending()[0].index == 1
    assert again.begin(again.pending()[0]).name != cut_off.name


def test_many_kills_do_not_use_up_a_runs_tries(design: Path, tmp_path: Path) -> None:
    """A run that was cut off does not count as failed."""
    for _ in range(4):
        campaign = Campaign.open(design, tmp_path)
        campaign.begin(campaign.pending()[0])
    assert Campaign.open(design, tmp_path).pending()[0].index == 0


@pytest.mark.parametrize("bad", ["INVALID", "UNSTEADY"])
def test_invalid_or_unsteady_run_is_kept_and_repeated_once(design: Path, tmp_path: Path, bad: str) -> None:
    """It counts as finished, and the level gets a second chance; a second such run is the last."""
    campaign = Campaign.open(design, tmp_path)
    assert [carry_out(campaign, valid=False, bad=bad).index for _ in range(2)] == [0, 0]
    assert [run.unsteady for run in Campaign.open(design, tmp_path).state.runs] == [bad == "UNSTEADY"] * 2
    assert campaign.pending()[0].index == 1
    assert [run.valid for run in campaign.state.runs] == [False, False]
    assert campaign.state.runs[0].reasons == ["The clock stepped."]


def test_a_missed_objective_is_a_result(design: Path, tmp_path: Path) -> None:
    """A VALID run is not repeated, even if it missed an objective."""
    campaign = Campaign.open(design, tmp_path)
    carry_out(campaign, passed=False)
    assert campaign.pending()[0].index == 1


def test_a_run_that_fails_twice_is_not_tried_again(design: Path, tmp_path: Path) -> None:
    """Its errors are kept by name."""
    campaign = Campaign.open(design, tmp_path)
    for _ in range(2):
        campaign.begin(campaign.pending()[0])
        campaign.abandon("the chain did not start")
    assert campaign.pending()[0].index == 1
    assert {one.why for one in campaign.state.abandoned} == {"the chain did not start"}


def test_changed_design_is_refused_and_runs_stay(design: Path, tmp_path: Path) -> None:
    """Runs of two designs never mix; the finished ones stay."""
    carry_out(Campaign.open(design, tmp_path))
    before = (tmp_path / "tiny" / "campaign.json").read_bytes()
    design.write_text(TEXT.replace("users: 50", "users: 60"))
    with pytest.raises(SettingError, match=r"another design.*--campaign"):
        Campaign.open(design, tmp_path)
    assert (tmp_path / "tiny" / "campaign.json").read_bytes() == before
    assert Campaign.open(design, tmp_path, "other").pending()[0].index == 0


def test_damaged_campaign_file_is_named(design: Path, tmp_path: Path) -> None:
    """A record cut off in the middle is refused with its path and the remedy, and not overwritten."""
    carry_out(Campaign.open(design, tmp_path))
    path = tmp_path / "tiny" / "campaign.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EmoStreamError, match=r"campaign\.json is cut off or damaged.*restore it"):
        Campaign.open(design, tmp_path)
    assert len(path.read_bytes()) == 200


def test_a_run_without_a_verdict_is_not_finished(design: Path, tmp_path: Path) -> None:
    """A run directory cut off in the middle of a write is refused by name."""
    campaign = Campaign.open(design, tmp_path)
    run = campaign.pending()[0]
    run_dir = campaign.begin(run)
    (run_dir / "verdict.json").write_text('{"verdict": "VA')
    with pytest.raises(EmoStreamError, match=r"verdict\.json is cut off or damaged"):
        campaign.finish(run, run_dir)
    assert not campaign.state.runs


def test_full_disk_is_named_and_finished_runs_stay(
    design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is replaced whole or not at all."""
    campaign = Campaign.open(design, tmp_path)
    carry_out(campaign)
    path = tmp_path / "tiny" / "campaign.json"
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = campaign.pending()[0]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(EmoStreamError, match=r"campaign\.json could not .*full: make"):
            campaign.begin(run)
    assert path.read_bytes() == before


def test_a_search_counts_the_failures_of_the_probe_at_hand(design: Path, tmp_path: Path) -> None:
    """A start that failed and was made again well is forgiven: only the same probe failing twice ends the search."""
    design.write_text(SEARCH)
    campaign = Campaign.open(design, tmp_path)
    for _ in range(3):
        campaign.begin(campaign.pending()[0])
        campaign.abandon("the chain did not start")
        carry_out(campaign)
    assert len(campaign.state.abandoned) == len(campaign.state.runs) == 3
    for _ in range(2):
        assert campaign.pending()[0].index == 3
        campaign.begin(campaign.pending()[0])
        campaign.abandon("the chain did not start")
    assert not campaign.pending()


def test_a_directory_that_cannot_be_made_is_named(design: Path, tmp_path: Path) -> None:
    """Of the campaign, and of a run; what is there stays."""
    campaign = Campaign.open(design, tmp_path)
    (campaign.directory / "runs").write_text("a file in the way")
    with pytest.raises(EmoStreamError, match=r"tiny/runs/\S+ could not be written: Not a directory: fix that"):
        campaign.begin(campaign.pending()[0])
    with pytest.raises(EmoStreamError, match=r"tiny/runs/tiny could not be written: Not a directory"):
        Campaign.open(design, campaign.directory / "runs")
    assert (campaign.directory / "runs").read_text() == "a file in the way"


def test_a_search_goes_where_its_results_lead(design: Path, tmp_path: Path) -> None:
    """The next load depends on the verdicts, and on nothing else that a new process could lack."""
    design.write_text(SEARCH)
    campaign = Campaign.open(design, tmp_path)
    loads = []
    while pending := campaign.pending():
        load = float(pending[0].factors["rate_per_s"])
        loads.append(load)
        carry_out(campaign, passed=load <= 500)
        campaign = Campaign.open(design, tmp_path)
    assert len(loads) == 8
    assert all(250 < load < 1000 for load in loads[3:])
    assert campaign.state.ended is not None


def test_probes_of_a_footprint_take_turns_with_the_others(design: Path, tmp_path: Path) -> None:
    """Those with the instrument's CPU doubled are spread over the search, and follow from their own results."""
    design.write_text(SEARCH.replace("probes: 8", "probes: 12, footprint: 6"))
    campaign = Campaign.open(design, tmp_path)
    doubled: list[bool] = []
    loads: list[float] = []
    while pending := campaign.pending():
        load = float(pending[0].factors["rate_per_s"])
        doubled.append(pending[0].parameters.get("slow_stage") == "instrument")
        loads.append(load)
        assert pending[0].parameters.get("slow_share", 0.5) == 0.5
        carry_out(campaign, passed=load <= (250 if doubled[-1] else 1000))
        campaign = Campaign.open(design, tmp_path)
    assert doubled == [False, True, False] * 6
    assert max(load for load, double in list(zip(loads, doubled, strict=True))[9:] if double) < 500
    assert min(load for load, double in list(zip(loads, doubled, strict=True))[9:] if not double) > 500
