"""A temporary folder for Unix sockets."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from pipeline import socket_folder as module
from pipeline.errors import SettingError
from pipeline.socket_folder import socket_folder


def serves(folder: str) -> bool:
    """Whether a socket can be made there; the folder is empty otherwise."""
    assert list(Path(folder).iterdir()) == []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/control")
    return Path(folder, "control").is_socket()


@pytest.mark.parametrize("kind", ["usual", "long", "missing", "file"])
def test_folder_holds_a_socket_whatever_tmpdir_is(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is removed at the end; a TMPDIR that is too long, missing, or a file is not used."""
    (tmp_path / "file").touch()
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(
        "TMPDIR", {"usual": "/tmp", "long": str(long), "missing": "/nowhere", "file": f"{tmp_path}/file"}[kind]
    )
    folder = socket_folder("control")
    assert serves(folder.name)
    folder.cleanup()
    assert not Path(folder.name).exists()
    assert list(long.iterdir()) == []


def test_no_usable_folder_is_named_with_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both attempts are in the error."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(module, "SHORT", str(tmp_path / "missing"))
    with pytest.raises(SettingError, match=r"too long.*missing.*set TMPDIR to a folder with a short path"):
        socket_folder("control")
