"""Files are written whole or not at all."""

from __future__ import annotations

import errno

import pandas as pd
import pytest

from experiments import __main__, files
from experiments.cli import instrument
from pipeline.errors import EmoStreamError

WRITERS = {
    "text": lambda path: files.write_text(path, "new 🎉"),
    "parquet": lambda path: files.to_parquet(pd.DataFrame({"a": [1]}), path),
    "csv": lambda path: files.to_csv(pd.DataFrame({"a": [1]}), path),
}


def half(path, error):
    """Write half a file, and fail."""
    with files._whole(path) as beside:
        beside.write_text("hal")
        raise error


@pytest.fixture(params=WRITERS)
def write(request):
    """Each way to write a file."""
    return WRITERS[request.param]


def test_a_file_gets_its_name_when_it_is_complete(write, tmp_path):
    """What is written stands under its name, and nothing else is left beside it."""
    write(tmp_path / "some")
    assert [path.name for path in tmp_path.iterdir()] == ["some"]


def test_what_was_written_can_be_read(tmp_path):
    """Text is UTF-8, and frames come back without an index."""
    WRITERS["text"](tmp_path / "text")
    WRITERS["parquet"](tmp_path / "parquet")
    WRITERS["csv"](tmp_path / "csv")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "new 🎉"
    assert pd.read_parquet(tmp_path / "parquet").to_dict("list") == {"a": [1]}
    assert (tmp_path / "csv").read_text(encoding="utf-8") == "a\n1\n"


def test_a_failed_write_keeps_the_old_file(tmp_path):
    """Whatever ends a write, a finished file keeps its contents and no half of the new one stays."""
    path = tmp_path / "some"
    path.write_text("finished")
    with pytest.raises(KeyboardInterrupt):
        half(path, KeyboardInterrupt())
    assert path.read_text() == "finished"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full: make room and run it again"),
        (errno.EACCES, "Permission denied: fix that"),
    ],
)
def test_a_full_disk_is_named_with_the_file_and_harms_nothing(tmp_path, number, said):
    """The error names the path, the cause and what to do; the finished file beside it is as it was."""
    path = tmp_path / "report.html"
    path.write_text("finished")
    with pytest.raises(EmoStreamError, match=said) as raised:
        half(path, OSError(number, "Permission denied"))
    assert str(path) in str(raised.value)
    assert path.read_text() == "finished"


def test_a_really_full_disk_is_such_an_error(tmp_path, monkeypatch):
    """/dev/full refuses every byte, as a full disk does."""
    monkeypatch.setattr(files, "_beside", lambda path: tmp_path / "full")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(EmoStreamError, match=r"some could not be written: the disk is full"):
        files.write_text(tmp_path / "some", "x" * 100_000)


def test_a_missing_folder_is_named(write, tmp_path):
    """A path that cannot exist is an error of ours, not a traceback."""
    with pytest.raises(EmoStreamError, match="absent/some could not be written"):
        write(tmp_path / "absent" / "some")


def test_a_full_disk_anywhere_is_one_line(monkeypatch):
    """A failure outside these functions, such as a new folder, gets the same message."""

    def fail(options):
        raise OSError(errno.ENOSPC, "No space left on device", "reports/mine/summary")

    monkeypatch.setitem(instrument.LINES, "report", (*instrument.LINES["report"][:2], fail))
    with pytest.raises(
        SystemExit, match="experiments report: reports/mine/summary could not be written: the disk is full"
    ):
        __main__.main(["report", "reports/mine"])


def test_directory_without_permission_is_named_without_a_traceback(monkeypatch):
    """A directory of another user, which the command may not enter, is an error of one line."""

    def refused(_options):
        raise PermissionError(errno.EACCES, "Permission denied", "reports/theirs/runs")

    monkeypatch.setitem(instrument.LINES, "report", (*instrument.LINES["report"][:2], refused))
    with pytest.raises(SystemExit, match=r"^experiments report: reports/theirs/runs cannot be accessed .*: give your"):
        __main__.main(["report", "reports/theirs"])
