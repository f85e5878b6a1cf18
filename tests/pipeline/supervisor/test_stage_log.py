"""The log of a stage's newest process."""

from __future__ import annotations

from pathlib import Path

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
