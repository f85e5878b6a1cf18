"""The lock file of a run directory: one chain per directory, and its addresses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from pipeline.errors import SettingError
from pipeline.supervisor.lock_file import FILE, LockFile, find


def test_running_chain_is_found_by_its_run_dir(tmp_path: Path) -> None:
    """From the moment it is ready until it ends."""
    with LockFile(tmp_path) as lock_file:
        lock_file.publish(json.dumps({"control": "ipc://here"}))
        assert find(tmp_path) == {"control": "ipc://here"}
    with pytest.raises(SettingError, match=f"run_dir {tmp_path} has no running chain"):
        find(tmp_path)


def test_starting_chain_raises_try_again(tmp_path: Path) -> None:
    """The line of an earlier chain in the same directory is not used."""
    with LockFile(tmp_path) as lock_file:
        lock_file.publish('{"control": "ipc://before"}')
    with LockFile(tmp_path), pytest.raises(SettingError, match="still starting: try again"):
        find(tmp_path)


def test_missing_run_dir_is_named_with_command_to_start(tmp_path: Path) -> None:
    """The error has the command that starts a chain there."""
    with pytest.raises(SettingError, match=f"has no running chain: `emostream up --run-dir {tmp_path / 'none'}"):
        find(tmp_path / "none")


def test_command_to_start_is_quoted(tmp_path: Path) -> None:
    """A shell gives back the directory."""
    with pytest.raises(SettingError, match="has no running chain") as raised:
        find(tmp_path / "o'brien (1)")
    assert shlex.split(str(raised.value).split("`")[1])[-1] == str(tmp_path / "o'brien (1)")


def test_second_chain_is_refused_and_keeps_the_first_ones_line(tmp_path: Path) -> None:
    """A run directory has one chain at most."""
    with LockFile(tmp_path) as lock_file:
        lock_file.publish("{}")
        with pytest.raises(SettingError, match="in use by another `up`"), LockFile(tmp_path):
            pass
        assert (tmp_path / FILE).read_text() == "{}\n"
