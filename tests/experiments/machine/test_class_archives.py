"""Writing the archives of classes: whole or not at all, and quiet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.machine import class_archives
from pipeline import class_archive
from pipeline.errors import EmoStreamError


def test_archive_takes_its_place_once_it_is_whole(tmp_path: Path) -> None:
    """Those that no longer fit go then, and nothing else."""
    for name in ("spark-old.jsa", "spark-old.size", "kafka-old.jsa"):
        (tmp_path / name).touch()
    archive = tmp_path / "spark-new.jsa"
    with class_archives.whole(archive) as beside:
        beside.write_bytes(b"classes")
        assert not archive.exists()
    assert archive.read_bytes() == b"classes"
    assert class_archive.is_whole(archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kafka-old.jsa", "spark-new.jsa", "spark-new.size"]


def test_archive_that_was_not_written_is_named(tmp_path: Path) -> None:
    """The old one stays: its JVM decides whether it fits."""
    (tmp_path / "spark-old.jsa").touch()
    with (
        pytest.raises(EmoStreamError, match=r"spark-new\.jsa was not written"),
        class_archives.whole(tmp_path / "spark-new.jsa"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["spark-old.jsa"]


def test_output_is_shown_only_with_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What the JVMs print goes to the log, and its end into the error."""
    with class_archives.output_to(tmp_path / "log"):
        os.write(1, b"a warning of Spark\n")
    with pytest.raises(EmoStreamError, match=r"(?s)it failed.*the reason"):
        fail(tmp_path / "log")
    assert capfd.readouterr() == ("", "")


def fail(log: Path) -> None:
    """Print the reason, and fail."""
    with class_archives.output_to(log):
        os.write(2, b"the reason\n")
        raise EmoStreamError("it failed")
