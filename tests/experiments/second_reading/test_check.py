"""`second-reading` counts the figures that are equal, names those that differ, and says so by its status."""

from __future__ import annotations

import json

import pytest

from experiments import __main__ as experiments_command


def said(capsys, *words):
    """Return the exit status of the command, and what it printed."""
    with pytest.raises(SystemExit) as end:
        experiments_command.main(["second-reading", *map(str, words)])
    return end.value.code, capsys.readouterr().out


def test_equal_figures_are_counted(run_dir, capsys):
    """A run, or every run of a campaign whose rows are kept."""
    status, text = said(capsys, run_dir)
    heading, row = text.splitlines()
    assert (status, heading.split()) == (0, ["run", "figures", "equal", "differing"])
    name, figures, equal, differing = row.split()
    assert (name, equal, differing) == (run_dir.name, figures, "0")
    assert int(figures) > 90
    (run_dir.parent / "without-rows").mkdir()
    assert said(capsys, run_dir.parent.parent, "--all") == (0, text)


def test_figure_that_differs_is_printed_and_gives_status_one(run_dir, capsys):
    """With both values, for people and for programs."""
    path = run_dir / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"duplicated": 4}))
    status, text = said(capsys, run_dir)
    sentence = "duplicated: the summary has 4.0, and the second reading is 0.0"
    assert (status, text.splitlines()[-1]) == (1, f"{run_dir.name}: {sentence}")
    status, text = said(capsys, run_dir, "--json")
    assert (status, json.loads(text)[0]["differing"]) == (1, [sentence])


def test_wrong_directory_is_refused(run_dir, tmp_path, capsys):
    """A campaign needs --all, and --all a campaign with rows."""
    campaign = run_dir.parent.parent
    assert said(capsys, campaign)[0].endswith(f"{campaign} is a campaign: add --all to read each of its runs")
    assert "there is no directory" in said(capsys, tmp_path / "nowhere")[0]
    assert f"{run_dir} is not a campaign" in said(capsys, run_dir, "--all")[0]
    for path in run_dir.glob("*.parquet"):
        path.unlink()
    assert f"{campaign} has no run whose rows are kept" in said(capsys, campaign, "--all")[0]
