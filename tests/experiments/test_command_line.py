"""Errors of `python -m experiments` that are found before anything runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.parameters import Parameters
from experiments.run.chain import attached
from experiments.run.measure import measure
from pipeline.errors import SettingError


@pytest.mark.parametrize("command", [["run"], ["sweep", "experiments/designs/smoke.yaml"]])
@pytest.mark.parametrize("name", ["../up", "/tmp/up"])
def test_campaign_outside_the_reports_is_refused(command: list[str], name: str, tmp_path: Path) -> None:
    """A campaign is a folder below the reports; nothing is written elsewhere."""
    with pytest.raises(SystemExit, match=f"campaign is '{name}': give the name of a folder below the reports"):
        main([*command, "--campaign", name, "--reports", str(tmp_path / "reports")])
    assert list(tmp_path.iterdir()) == []


def test_document_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    """The error names the document."""
    with pytest.raises(SystemExit, match=r"document .*nope\.md cannot be read .*: give the path of a Markdown file"):
        main(["docs", str(tmp_path / "nope.md")])


def test_command_to_start_a_chain_is_quoted(tmp_path: Path) -> None:
    """The error for a ready file that does not exist; a shell gives back its path."""
    with pytest.raises(SettingError, match="names no running chain") as raised:
        attached(tmp_path / "o'brien (1).json")
    assert shlex.split(str(raised.value).split("`")[1])[-1] == str(tmp_path / "o'brien (1).json")


def test_unknown_objective_is_refused_before_the_run(tmp_path: Path) -> None:
    """A run of minutes does not end with an error that was known at its start."""
    with pytest.raises(SettingError, match="slos names 'speed', which is not an objective: use one of"):
        measure(Parameters(slos='{"speed": 1}'), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_recording_that_ends_too_soon_is_refused_before_the_run(tmp_path: Path) -> None:
    """Also from a notebook and a scheduler, which call this: no chain starts, nothing is written."""
    path = tmp_path / "cut.csv"
    path.write_text("offset_ms,user_id,emoji_type\n2499477,ada,😂\n2500477,ada,😂\n", encoding="utf-8")
    with pytest.raises(SettingError, match=r"the trace lasts 1\.0 s at speed 1, and 5 \+ 20 triggers"):
        measure(Parameters(arrivals="trace", trace=str(path)), tmp_path / "run")
    assert list(tmp_path.iterdir()) == [path]
