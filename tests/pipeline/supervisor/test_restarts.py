"""Restarts: how often a stage may die, and the error after that."""

from __future__ import annotations

from pathlib import Path

from pipeline.supervisor.restarts import DEATHS_MAX, WITHIN_S, Restarts, gave_up, is_hopeless


def test_stage_that_dies_too_often_within_the_time_is_given_up() -> None:
    """The first start is no restart, so the sixth death is the first that is not followed by another start."""
    restarts = Restarts()
    starts = [restarts.count("spark", n * WITHIN_S / 10) for n in range(DEATHS_MAX + 1)]
    assert [is_hopeless(count) for count in starts] == [False] * DEATHS_MAX + [True]


def test_old_starts_do_not_count() -> None:
    """A stage that dies once per minute is restarted without end."""
    restarts = Restarts()
    assert {restarts.count("spark", n * (WITHIN_S + 1)) for n in range(50)} == {1}


def test_stages_are_counted_separately_and_can_be_forgotten() -> None:
    """A stage that was stopped on purpose and comes back has not died."""
    restarts = Restarts()
    assert [restarts.count(name, 0.0) for name in ("spark", "ingest", "spark")] == [1, 1, 2]
    restarts.forget("spark")
    restarts.forget("unknown")
    assert [restarts.count(name, 1.0) for name in ("spark", "ingest")] == [1, 2]


def test_error_quotes_the_last_log_line_and_names_the_log(tmp_path: Path) -> None:
    """Also when the stage has written nothing."""
    log = tmp_path / "spark.log"
    assert "its log is empty" in str(gave_up("spark", log))
    log.write_text("first\nlast " + "x" * 1_000 + "\n")
    text = str(gave_up("spark", log))
    assert text.startswith(f"stage spark died {DEATHS_MAX} times within {WITHIN_S:g} s: last xxx")
    assert text.endswith(f"(full log: {log})")
    assert len(text) < 700
