"""The log of a stage's newest process."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.supervisor import stage_log
from pipeline.supervisor.stage_log import TAIL_BYTES, StageLog

ERROR = "pipeline.ingest: ingest_port is {}: choose another\n"


def test_errors_of_earlier_processes_are_left_out(tmp_path: Path) -> None:
    """Also if the newest one has logged nothing, or the log is not there yet or any more."""
    path = tmp_path / "ingest.log"
    log = StageLog(path)
    log.begin()
    assert log.last_error() == log.last_complaint() == ""
    path.write_text(ERROR.format(1))
    assert log.last_error() == ERROR.format(1).strip()
    log.begin()
    assert log.last_error() == log.last_complaint() == ""
    with path.open("a") as file:
        file.write(ERROR.format(2))
    assert log.last_error() == ERROR.format(2).strip()
    path.unlink()
    assert log.last_error() == ""


def test_own_error_counts_more_than_that_of_its_jvm(tmp_path: Path) -> None:
    """The JVM's is the reason as long as the stage itself has said nothing."""
    own, jvm = tmp_path / "kafka.log", tmp_path / "kafka" / "kafka.log"
    jvm.parent.mkdir()
    log = StageLog(own, jvm)
    jvm.write_text("[main] ERROR kafka.Kafka$ - no room\n")
    assert log.last_error() == "kafka.Kafka$ - no room"
    own.write_text("pipeline.broker: the port is taken\n")
    assert log.last_error() == "pipeline.broker: the port is taken"


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    """A log can grow to gigabytes."""
    path = tmp_path / "ingest.log"
    path.write_text(ERROR.format(1) + "x\n" * TAIL_BYTES + "WARNING slow\n")
    assert StageLog(path).last_error() == ""
    assert StageLog(path).last_complaint() == "slow"


def test_long_log_is_moved_aside_while_a_process_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is lost, the process goes on in the emptied file, and its errors are found there."""
    monkeypatch.setattr(stage_log, "LOG_MAX_BYTES", 100)
    path = tmp_path / "spark.log"
    log = StageLog(path, tmp_path / "kafka.log")
    with path.open("a", buffering=1) as appending:
        appending.write("x" * 99 + "\n")
        log.trim()
        assert not (tmp_path / "spark.log.1").exists()
        appending.write(ERROR.format(1))
        log.trim()
        assert path.read_text() == ""
        appending.write(ERROR.format(2))
    assert (tmp_path / "spark.log.1").read_text() == "x" * 99 + "\n" + ERROR.format(1)
    assert path.read_text() == ERROR.format(2)
    assert log.last_error() == ERROR.format(2).strip()
