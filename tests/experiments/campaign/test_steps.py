"""A campaign in steps that a scheduler starts: nothing finished is lost, nothing is made twice, faults are named."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from papermill.exceptions import PapermillExecutionError

from experiments.campaign import steps
from experiments.campaign.report import page
from experiments.machine import machine_lock
from pipeline.errors import EmoStreamError, SettingError

LEVELS = """\
name: tiny
about: Two levels.
seed: 3
levels: [{users: 10, rate_per_s: 20}, {users: 50, rate_per_s: 20}]
slos: {lost: 0}
"""
SEARCH = """\
name: climb
about: A search.
search: {factor: rate_per_s, least: 100, most: 1600, probes: 8}
slos: {lost: 0}
"""


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Designs, reports, the machine's lock and the page of a test's own; return where reports go."""
    designs = tmp_path / "designs"
    designs.mkdir()
    (designs / "tiny.yaml").write_text(LEVELS)
    (designs / "climb.yaml").write_text(SEARCH)
    monkeypatch.setattr(steps, "DESIGNS", designs)
    monkeypatch.setattr(steps, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    monkeypatch.setattr(page, "write", lambda directory: directory / "index.html")
    return tmp_path / "reports"


def leave(run_dir: Path, *, valid: bool = True, passed: bool = True) -> None:
    """Leave the manifest and the verdict that a run would."""
    verdict = {
        "verdict": "VALID" if valid else "INVALID",
        "passed": passed and valid,
        "reasons": [] if valid else ["The clock stepped."],
        "slos": [
            {"key": "lost", "name": "Reactions lost", "figure": 0 if passed else 3, "limit": 0, "passed": passed},
            {"key": "deliveries_missing", "name": "Deliveries missing", "figure": 0, "limit": 0, "passed": True},
        ],
    }
    (run_dir / "manifest.json").write_text("{}")
    (run_dir / "verdict.json").write_text(json.dumps(verdict))


def carry_out(index: int, *, valid: bool = True, passed: bool = True) -> Path:
    """Carry out run `index` as if by a notebook; return its directory."""
    with steps.carried_out("tiny", "", index) as run_dir:
        leave(run_dir, valid=valid, passed=passed)
    return run_dir


def due() -> list[int]:
    """Return the indices of the runs that are due."""
    return [run["index"] for run in steps.planned("tiny")]


def noted(reports: Path) -> dict:
    """Return what campaign.json holds."""
    return json.loads((reports / "tiny" / "campaign.json").read_text())


def failure(name: str) -> PapermillExecutionError:
    """Return the error that papermill raises for a cell that raised `name`."""
    return PapermillExecutionError(1, 1, "measure()", name, "it broke", [])


def test_designs_with_levels_are_offered() -> None:
    """A search cannot be planned, so a form does not offer it."""
    assert steps.designs() == ["tiny"]


def test_a_bad_file_among_the_designs_is_named_and_left_out(reports: Path) -> None:
    """The others are offered all the same, and planned."""
    designs = reports.parent / "designs"
    (designs / "wide.yaml").write_bytes(LEVELS.encode("utf-16"))
    (designs / "binary.yaml").write_bytes(bytes(range(256)))
    (designs / "folder.yaml").mkdir()
    (designs / "gone.yaml").symlink_to("nowhere")
    (designs / "empty.yaml").write_text("")
    assert steps.designs() == ["tiny"]
    named = steps.unreadable()
    assert [sum(name in error for error in named) for name in ("wide", "binary", "folder", "gone")] == [1] * 4
    assert len(named) == 4
    assert "it is UTF-16, by its byte order mark" in next(error for error in named if "wide" in error)
    assert len(steps.planned("tiny")) == 2


def test_a_design_with_an_error_is_named_when_it_is_chosen(reports: Path) -> None:
    """It is offered, since only its run reads it whole."""
    (reports.parent / "designs" / "octal.yaml").write_text(LEVELS.replace("seed: 3", "seed: 010"))
    assert steps.designs() == ["octal", "tiny"]
    assert steps.unreadable() == []
    with pytest.raises(SettingError, match=r"octal\.yaml, line 3, field seed: it is 010"):
        steps.planned("octal")


def test_a_plan_names_each_run_with_its_notebook_and_parameters() -> None:
    """Every run that is due is planned in its order, its parameters of the notebook's own types."""
    runs = steps.planned("tiny")
    assert [run["index"] for run in runs] == [0, 1]
    assert {run["parameters"]["users"] for run in runs} == {10, 50}
    assert runs[0]["parameters"]["rate_per_s"] == 20.0
    assert isinstance(runs[0]["parameters"]["rate_per_s"], float)
    assert Path(runs[0]["input_nb"]).name == "run.ipynb"
    assert runs[0]["title"].startswith("1: users=")
    assert json.loads(json.dumps(runs)) == runs


def test_a_search_is_refused() -> None:
    """Its plan is refused with the command that carries it out."""
    with pytest.raises(SettingError, match=r"climb is a search.*emostream sweep experiments/designs/climb"):
        steps.planned("climb")


def test_the_command_in_the_refusal_is_quoted(reports: Path) -> None:
    """A design may have any file name."""
    (reports.parent / "designs" / "o'b (1).yaml").write_text(SEARCH)
    with pytest.raises(SettingError, match="sweep ") as refused:
        steps.planned("o'b (1)")
    assert shlex.split(str(refused.value).partition("`")[2].rstrip("`"))[-1] == "experiments/designs/o'b (1).yaml"


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden", "a b", "x\n"])
def test_a_campaign_stays_below_reports(name: str) -> None:
    """A name that is not a plain folder name is refused before anything is created."""
    with pytest.raises(SettingError, match="campaign is"):
        steps.planned("tiny", name)


def test_finished_runs_are_not_due_again(reports: Path) -> None:
    """A run with its verdict is entered at once, with the notebook's hash, and a later plan leaves it out."""
    assert due() == [0, 1]
    run_dir = carry_out(0)
    assert due() == [1]
    assert [run["run"] for run in noted(reports)["runs"]] == [run_dir.name]
    assert "notebook_sha256" in json.loads((run_dir / "manifest.json").read_text())


def test_a_run_that_is_not_due_is_refused(reports: Path) -> None:
    """To clear the task of a finished run harms nothing: the run is refused, its directory stays as it is."""
    due()
    carry_out(0)
    with pytest.raises(EmoStreamError, match=r"run 1 of .* is not due"):
        carry_out(0)
    assert len(list((reports / "tiny" / "runs").iterdir())) == 1


def test_a_run_that_fails_without_a_verdict_is_abandoned(reports: Path) -> None:
    """The failed cell's own words are kept, the error goes on, and the run is due again under a new id."""
    due()
    with pytest.raises(PapermillExecutionError), steps.carried_out("tiny", "", 0):
        raise failure("EmoStreamError")
    assert noted(reports)["abandoned"][0]["why"] == "EmoStreamError: it broke"
    assert noted(reports)["abandoned"][0]["failed"]
    assert due() == [0, 1]


@pytest.mark.parametrize("error", [failure("KeyboardInterrupt"), KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_run_has_not_failed(reports: Path, error: BaseException) -> None:
    """A run that somebody stopped, in its notebook or around it, does not count against it."""
    due()
    with pytest.raises(type(error)), steps.carried_out("tiny", "", 0):
        raise error
    assert [run["failed"] for run in noted(reports)["abandoned"]] == [False]


def test_a_run_that_fails_after_its_verdict_is_finished(reports: Path) -> None:
    """What was measured is kept even if a later cell fails; the task fails nevertheless."""

    def judged_then_failed() -> None:
        with steps.carried_out("tiny", "", 0) as run_dir:
            leave(run_dir, passed=False)
            raise failure("AssertionError")

    due()
    with pytest.raises(PapermillExecutionError):
        judged_then_failed()
    assert [run["passed"] for run in noted(reports)["runs"]] == [False]
    assert noted(reports)["abandoned"] == []


def test_a_run_that_was_killed_is_made_again(reports: Path) -> None:
    """A kill says nothing; the next plan finds the run under way, notes it as cut off, and has it due."""
    due()
    killed = steps.carried_out("tiny", "", 0)
    first = killed.__enter__()
    assert due() == [0, 1]
    assert noted(reports)["abandoned"][0]["run"] == first.name
    assert "cut off" in noted(reports)["abandoned"][0]["why"]
    assert carry_out(0) != first


def test_a_good_campaign_is_reduced_to_its_page(reports: Path) -> None:
    """Where every run is valid and met its objectives, the page's path is all there is to say."""
    due()
    carry_out(0)
    carry_out(1)
    assert steps.reduced("tiny") == reports / "tiny" / "index.html"


@pytest.mark.parametrize(
    ("ends", "complaint"),
    [
        ({"passed": False}, r"run 2 \(users=.*missed: Reactions lost: 3, limit 0$"),
        ({"valid": False}, r"run 2 \(users=.*INVALID: The clock stepped\."),
        (None, r"run 2 \(users=.*it did not start"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(ends: dict[str, bool] | None, complaint: str) -> None:
    """A missed objective, an INVALID run and a missing one each fail the campaign, named, once the page is there."""
    due()
    carry_out(0)
    if ends is not None:
        carry_out(1, **ends)
    with pytest.raises(EmoStreamError, match=rf"(?s)index\.html is written, but:\n.*{complaint}") as raised:
        steps.reduced("tiny")
    assert "run 1" not in str(raised.value)


def test_an_invalid_run_that_was_made_again_is_forgiven(reports: Path) -> None:
    """What counts is that each level has its valid run."""
    due()
    carry_out(0)
    carry_out(1, valid=False)
    assert due() == [1]
    carry_out(1)
    assert steps.reduced("tiny") == reports / "tiny" / "index.html"
