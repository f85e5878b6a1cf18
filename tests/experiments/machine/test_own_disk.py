"""Disks of one's own: nobody else sees them, and they can be full."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments.machine import own_disk
from pipeline.errors import EmoStreamError

possible = pytest.mark.skipif(bool(own_disk.unavailable()), reason=own_disk.unavailable() or "possible here")


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@possible
def test_what_is_mounted_apart_is_seen_by_nobody_else(tmp_path: Path) -> None:
    """A process that is started apart sees it; another thread does not; afterwards all is as before."""
    (tmp_path / "file").write_text("here", encoding="utf-8")
    asked, answer = threading.Event(), threading.Event()
    seen: list[list[str]] = []

    def look() -> None:
        asked.wait(30)
        seen.append(names(tmp_path))
        answer.set()

    other = threading.Thread(target=look)
    other.start()
    before = Path.cwd()
    with own_disk.apart():
        own_disk.cover(tmp_path, 4)
        assert names(tmp_path) == []
        command = [sys.executable, "-c", f"import os; print(os.listdir({str(tmp_path)!r}))"]
        assert subprocess.check_output(command, encoding="utf-8").strip() == "[]"
        asked.set()
        assert answer.wait(30)
        # One that was started here and lives on does not hinder the way back.
        lives = threading.Event()
        late = threading.Thread(target=lives.wait)
        late.start()
    other.join()
    assert seen == [["file"]]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "here"
    assert Path.cwd() == before
    lives.set()
    late.join()
    with pytest.raises(FileNotFoundError), own_disk.apart():
        own_disk.move(tmp_path / "missing", 4)
    assert names(tmp_path) == ["file"]


@possible
def test_folders_that_are_kept_stay(tmp_path: Path) -> None:
    """What is written into one of them is there afterwards; what is written beside it is not."""
    for name in ("kept", "other"):
        (tmp_path / name / "below").mkdir(parents=True)
    with own_disk.apart():
        own_disk.cover(tmp_path, 4, [tmp_path / "kept" / "below", Path("/elsewhere"), tmp_path])
        assert names(tmp_path) == ["kept"]
        (tmp_path / "kept" / "below" / "file").touch()
        (tmp_path / "beside").touch()
    assert names(tmp_path) == ["kept", "other"]
    assert names(tmp_path / "kept" / "below") == ["file"]


@possible
def test_a_disk_is_full_and_has_room_again(tmp_path: Path) -> None:
    """A moved folder has its files. A disk is filled to the last page, or up to what is left."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "file").write_text("here", encoding="utf-8")
    with own_disk.apart():
        own_disk.move(folder, 8)
        assert names(folder) == ["file"]
        with own_disk.filled(folder), pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(b"x")
        with own_disk.filled(folder, leave_mb=3):
            assert shutil.disk_usage(folder).free >> 20 == 3
        (folder / "file").write_text("there", encoding="utf-8")
        with pytest.raises(EmoStreamError, match="cannot be filled up to 9 MB"), own_disk.filled(folder, 9):
            pass
    # It was on the disk of one's own.
    assert names(folder) == []


def test_without_the_rights_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what is needed."""
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    with pytest.raises(EmoStreamError, match=r"no disks apart.*root.*unshare"), own_disk.apart():
        pass
