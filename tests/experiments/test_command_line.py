"""Errors of `python -m experiments` that are found before anything runs."""

from __future__ import annotations

import atexit
import io
import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.machine import machine_lock
from experiments.parameters import Parameters
from experiments.run import kernel, lab, measure, notebook
from experiments.run.chain import attached
from pipeline.errors import EmoStreamError, SettingError


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
    with pytest.raises(SettingError, match=r"names no running chain \(no such file or directory\): start") as raised:
        attached(tmp_path / "o'brien (1).json")
    assert shlex.split(str(raised.value).split("`")[1])[-1] == str(tmp_path / "o'brien (1).json")


def test_unknown_objective_is_refused_before_the_run(tmp_path: Path) -> None:
    """A run of minutes does not end with an error that was known at its start."""
    with pytest.raises(SettingError, match="slos names 'speed', which is not an objective: use one of"):
        measure.measure(Parameters(slos='{"speed": 1}'), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for the reports; a kernel that is started for it fails the test."""

    def start(*_: Any, **__: Any) -> None:
        pytest.fail("a kernel was started")

    monkeypatch.setattr(kernel.LocalKernel, "start_kernel", start)
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    return tmp_path / "reports"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("users", "0", "parameter users is 0: give 1 or more"),
        ("rate_per_s", "-1", "parameter rate_per_s is -1.0: give more than 0"),
        ("policy", "round", "policy is 'round'"),
        ("clusters", "0", "clusters is 0"),
        ("loop", "half", "parameter loop is 'half': choose one of open, closed"),
        ("trace", "x.csv", "set arrivals to 'trace'"),
        ("slos", '{"speed": 1}', "slos names 'speed', which is not an objective"),
        ("attach", "/nowhere/ready.json", "attach is '/nowhere/ready.json', which names no running chain"),
        ("rate_per_s", "0.000001", "no reaction falls into them"),
    ],
)
def test_run_that_cannot_work_is_refused_before_a_kernel_starts(
    untouched: Path, name: str, value: str, error: str
) -> None:
    """The error is the notebook's own; no run directory is left."""
    with pytest.raises(SystemExit, match=error):
        main(["run", "-p", name, value, "--reports", str(untouched)])
    assert not untouched.exists()


def test_recording_that_does_not_exist_is_refused_before_a_kernel_starts(untouched: Path, tmp_path: Path) -> None:
    """A parameter that leads to a file is followed."""
    with pytest.raises(SystemExit, match=r"nope\.csv"):
        main(["run", "-p", "arrivals", "trace", "-p", "trace", str(tmp_path / "nope.csv"), "--reports", str(untouched)])
    assert not untouched.exists()


def test_second_run_is_refused_before_a_kernel_starts(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the first; no run directory is left."""
    holder = machine_lock.Holder(1, "The sweep of other.yaml", "ada", "2026-11-29 03:00:00 UTC")
    monkeypatch.setattr(machine_lock, "_holder", lambda handle: holder)
    monkeypatch.setattr(machine_lock.psutil.Process, "parents", lambda self: [])
    with (
        machine_lock.alone("another"),
        pytest.raises(SystemExit, match=r"sweep of other\.yaml \(process 1 of user ada, since .* is measuring on this"),
    ):
        main(["run", "--reports", str(untouched)])
    assert not untouched.exists()


def test_run_in_a_notebook_leaves_no_directory_when_it_is_refused(
    untouched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is asked for before a new run directory is made."""
    monkeypatch.setattr(machine_lock.psutil.Process, "parents", lambda self: [])
    monkeypatch.setattr(machine_lock, "_holder", lambda handle: machine_lock.Holder(1, "Another", "ada", "now"))
    monkeypatch.setattr(notebook, "new_run", lambda directory: pytest.fail("a run directory was made"))
    with machine_lock.alone("another"), pytest.raises(EmoStreamError, match=r"Another .* is measuring on this machine"):
        measure.measure(Parameters())


@pytest.mark.parametrize(
    "command", [["run"], ["sweep", "experiments/designs/smoke.yaml"], ["bench", "load"], ["compare", "a", "b"]]
)
def test_reports_that_cannot_be_written_are_refused_with_the_option(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only checkout, say; nothing is started or made."""
    monkeypatch.setattr(os, "access", lambda path, *_, **__: path != tmp_path)
    with pytest.raises(
        SystemExit, match=rf"--reports is '{tmp_path}/a/b', and {tmp_path} cannot be written: give a folder"
    ):
        main([*command, "--reports", str(tmp_path / "a" / "b")])
    assert list(tmp_path.iterdir()) == []


def test_reports_below_a_file_are_refused(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SystemExit, match=rf"--reports is .*, and {tmp_path}/file cannot be written"):
        main(["run", "--reports", str(tmp_path / "file" / "reports")])


def test_character_that_the_terminal_lacks_is_printed_as_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in Latin-1, say, must not end a run at its first emoji."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="latin-1", write_through=True))
    with pytest.raises(SystemExit):
        main(["trace", "make", "--minutes", "0"])
    print("é 😂")
    assert printed.getvalue() == b"\xe9 \\U0001f602\n"


def test_options_of_jupyterlab_are_passed_on_and_others_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only `lab` takes options that this program does not know."""
    given: list[list[str]] = []
    monkeypatch.setattr(lab, "main", given.append)
    with pytest.raises(SystemExit):
        main(["lab", "--no-browser", "--port", "9000"])
    assert given == [["--no-browser", "--port", "9000"]]
    with pytest.raises(SystemExit):
        main(["run", "--no-browser"])
    assert "unrecognized arguments: --no-browser" in capsys.readouterr().err


def test_user_without_a_home_gets_a_temporary_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Libraries ask for it. Where the jars would be in it, the error names the remedy."""

    def unknown(user_id: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user_id}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "EMOSTREAM_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="this user has no home directory: set EMOSTREAM_CACHE_DIR to the folder"):
        main(["report", str(tmp_path)])
    assert "HOME" not in os.environ
    monkeypatch.setenv("EMOSTREAM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(atexit, "register", lambda end: ends.append(end))
    ends: list[Any] = []
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path)])
    assert Path.home().is_dir()
    ends[0]()
    assert not Path.home().exists()
    monkeypatch.delenv("HOME")


def test_recording_that_ends_too_soon_is_refused_before_the_run(tmp_path: Path) -> None:
    """Also from a notebook and a scheduler, which call this: no chain starts, nothing is written."""
    path = tmp_path / "cut.csv"
    path.write_text("offset_ms,user_id,emoji_type\n2499477,ada,😂\n2500477,ada,😂\n", encoding="utf-8")
    with pytest.raises(SettingError, match=r"the trace lasts 1\.0 s at speed 1, and 5 \+ 20 \+ 1 triggers"):
        measure.measure(Parameters(arrivals="trace", trace=str(path)), tmp_path / "run")
    assert list(tmp_path.iterdir()) == [path]
