"""The mark on a run directory: whether a chain runs there, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import __main__ as command
from pipeline.errors import SettingError
from pipeline.supervisor.lock_file import FILE, LockFile, find


def test_a_running_chain_is_found_by_its_directory(tmp_path: Path) -> None:
    """From when it is ready until it ends."""
    with LockFile(tmp_path) as mark:
        mark.say(json.dumps({"control": "ipc://here"}))
        assert find(tmp_path) == {"control": "ipc://here"}
    with pytest.raises(SettingError, match=f"no chain runs in run_dir {tmp_path}"):
        find(tmp_path)


def test_a_chain_that_is_starting_says_so(tmp_path: Path) -> None:
    """What an earlier one said there is not taken for its word."""
    with LockFile(tmp_path) as mark:
        mark.say('{"control": "ipc://before"}')
    with LockFile(tmp_path), pytest.raises(SettingError, match="still starting: try again"):
        find(tmp_path)


def test_a_directory_where_nothing_ever_ran_is_named(tmp_path: Path) -> None:
    """With how to start one there."""
    with pytest.raises(SettingError, match=f"python -m pipeline up --run-dir {tmp_path / 'none'}"):
        find(tmp_path / "none")


def test_a_second_chain_is_refused_and_leaves_the_firsts_words(tmp_path: Path) -> None:
    """One directory, one chain."""
    with LockFile(tmp_path) as mark:
        mark.say("{}")
        with pytest.raises(SettingError, match="in use by another `up`"), LockFile(tmp_path):
            pass
        assert (tmp_path / FILE).read_text() == "{}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: python -m pipeline up"),
        (["down"], "python -m pipeline scale"),
        (["scale", "--run-dir", "{}", "--subscribers", "2"], "pipeline scale: no chain runs in run_dir {}"),
        (["scale", "--run-dir", "{}", "--subscribers", "2", "--cluster", "a/b"], "setting cluster"),
        (["scale", "--run-dir", "{}", "--subscribers", "2", "--cluster", "1-feed"], "no name ends in -feed"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No chain, no such command, an impossible name."""
    monkeypatch.delenv("EMOSTREAM_RUN_DIR", raising=False)
    # What is configured holds for the whole process.
    monkeypatch.setattr(command.logs, "configure", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        command.main([word.format(tmp_path) for word in arguments])
    assert said.format(tmp_path) in str(caught.value.code)


@pytest.mark.parametrize("number", ["-1", "101", "two", "½"])
def test_an_impossible_number_of_subscribers_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the numbers that are possible."""
    with pytest.raises(SystemExit) as caught:
        command.main(["scale", f"--subscribers={number}"])
    assert caught.value.code == 2
    assert "give a number from 0 to 100" in capsys.readouterr().err
