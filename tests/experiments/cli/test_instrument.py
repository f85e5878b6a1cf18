"""The instrument's commands of `emostream`: what they print, for people and with --json for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.campaign import sweep
from experiments.campaign.report import page
from experiments.cli import __main__ as emostream
from experiments.run import notebook
from experiments.synthetic.campaign import write_synthetic


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished campaign."""
    place = tmp_path_factory.mktemp("reports") / "concurrency"
    write_synthetic(place)
    page.write(place)
    return place


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """A function that runs `emostream` with words, and returns its status and what it printed."""
    monkeypatch.setattr(emostream.logs, "configure", lambda *_: None)

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            emostream.main(words)
        assert isinstance(end.value.code, int), end.value.code
        return end.value.code, capsys.readouterr().out

    return run


Said = Callable[..., tuple[int, str]]


def test_report_of_a_campaign_is_written_again(said: Said, campaign: Path) -> None:
    """Its path is the result."""
    written = campaign / "index.html"
    written.unlink()
    assert said("report", str(campaign), "--json") == (0, json.dumps({"report": str(written)}) + "\n")
    assert written.is_file()


def test_two_campaigns_are_compared(said: Said, campaign: Path, tmp_path: Path) -> None:
    """The text is for people; with --json only the paths of the page and its data are printed."""
    words = ("compare", str(campaign), str(campaign), "--reports", str(tmp_path))
    status, text = said(*words)
    assert (status, len(text.splitlines()) > 3) == (0, True)
    status, line = said(*words, "--json")
    assert (status, text.splitlines()[-1]) == (0, json.loads(line)["report"])
    assert all(Path(path).is_file() for path in json.loads(line).values())


def test_campaigns_without_a_common_level_are_an_error(said: Said, campaign: Path, tmp_path: Path) -> None:
    """A program sees it by the status, and how the designs differ is in words."""
    other = tmp_path / "capacity"
    loads = [{"rate_per_s": float(load)} for load in range(2000, 8000, 1000)]
    write_synthetic(other, levels=loads, search={"factor": "rate_per_s", "least": 2000, "most": 20000, "probes": 6})
    status, text = said("compare", str(other), str(campaign), "--reports", str(tmp_path))
    assert (status, "There is nothing to compare" in text) == (1, True)
    assert "search factor rate_per_s, least 2000, most 20000" in text
    assert "{" not in text


def test_missing_action_of_trace_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is written."""
    with pytest.raises(SystemExit, match="2"):
        emostream.main(["trace"])
    assert "required: make" in capsys.readouterr().err


def test_help_of_up_has_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a setting takes one of several words."""
    with pytest.raises(SystemExit, match="0"):
        emostream.main(["up", "--help"])
    assert "--ack {async,durable}" in capsys.readouterr().out


def test_experiment_prints_its_report_last(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with --json the run's directory."""
    given: list[Any] = []

    def carried_out(path: Path, parameters: dict[str, str], folder: Path) -> Path:
        given.append((path.name, parameters, folder))
        return folder / "runs" / "1" / "report.html"

    monkeypatch.setattr(notebook, "carry_out", carried_out)
    words = ("experiment", "-p", "users", "50", "--reports", str(tmp_path))
    run_dir = tmp_path / "single" / "runs" / "1"
    assert said(*words) == (0, f"{run_dir / 'report.html'}\n")
    status, line = said(*words, "--json")
    assert (status, json.loads(line)) == (0, {"report": str(run_dir / "report.html"), "run_dir": str(run_dir)})
    assert given == [("run.ipynb", {"users": "50"}, tmp_path / "single")] * 2


@pytest.mark.parametrize(("missed", "unfinished", "status"), [(0, 0, 0), (2, 0, 3), (2, 1, 4)])
def test_sweep_ends_with_its_outcome(
    missed: int, unfinished: int, status: int, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objectives that were missed, and levels without a valid run, have statuses of their own."""
    outcome = sweep.Outcome(tmp_path / "index.html", 4, 0, 1, missed, unfinished)
    monkeypatch.setattr(sweep, "sweep", lambda *_: outcome)
    ended, line = said("sweep", "smoke", "--reports", str(tmp_path), "--json")
    assert ended == status
    facts = {"finished": 4, "invalid": 0, "unsteady": 1, "missed": missed, "unfinished": unfinished, "status": status}
    assert json.loads(line) == {"report": str(tmp_path / "index.html"), **facts}
