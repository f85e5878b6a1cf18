"""The supervisor's reports in words."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.supervisor.reports import Missing, gave_up, not_ready, readable

DIED = {"event": "died", "name": "spark", "exit": "SIGKILL", "deaths": 1, "restarted": True, "error": ""}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"event": "ready", "name": "kafka", "address": "127.0.0.1:9092"},
            "kafka                ready      127.0.0.1:9092",
        ),
        ({"event": "ready", "name": "cluster-publisher-1", "address": ""}, "cluster-publisher-1  ready"),
        (
            {"event": "back", "name": "ingest", "after_s": 2.5, "address": "http://x"},
            "ingest               back       http://x after 2.5 s",
        ),
        (DIED, "spark                died       SIGKILL; restarted; its log has no error"),
        (
            {**DIED, "deaths": 6, "restarted": False, "error": "KeyError: x", "out_of_memory": True},
            "spark                died       SIGKILL, while the system was out of memory; "
            "not restarted (6 deaths within 60 s); KeyError: x",
        ),
        (
            {"event": "killed", "name": "spark", "after_s": 15.0},
            "spark                killed     it did not end within 15 s",
        ),
        (
            {"event": "hangs", "name": "spark", "silent_s": 65.5},
            "spark                hangs      it has not gone on for 65.5 s, and is killed",
        ),
        ({"event": "removed", "name": "subscriber-1-2"}, "subscriber-1-2       removed"),
        ({"event": "stopping", "why": "SIGINT"}, "chain                stopping: SIGINT"),
        ({"event": "stopped"}, "chain                stopped"),
        (
            {"event": "looking for Kafka", "address": "kafka:9092"},
            "chain                looking for Kafka at kafka:9092",
        ),
    ],
)
def test_terminal_shows_one_line_per_event(event: dict[str, Any], line: str) -> None:
    """Seconds since the start, the stage, and what happened."""
    shown = readable(lambda: 5.25, lambda *_: "other")(None, "info", {"level": "info", **event})
    assert shown == f"   5.2 s  {line}"


def test_event_of_a_library_is_shown_as_elsewhere() -> None:
    """The supervisor does not know it."""
    shown = readable(lambda: 5.25, lambda logger, method, event: f"{method} {event['event']}")(
        None, "warning", {"event": "x"}
    )
    assert shown == "warning x"


def missing(stage: str, after: str = "kafka", deaths: int = 0, error: str = "", complaint: str = "") -> Missing:
    """Return a stage that is not ready."""
    return Missing(stage, "has no window", after, deaths, error, error or complaint, f"logs/{stage}.log")


def test_error_of_a_late_chain_names_causes_and_who_waits_for_them() -> None:
    """A stage that waits for another and has died itself, or logged an error, is a cause of its own."""
    stages = [
        missing("spark", complaint="slow"),
        missing("main-publisher", "spark"),
        missing("cluster-publisher-1", "main-publisher", deaths=2, error="KeyError: x"),
        missing("subscriber-1-1", "cluster-publisher-1", error="no room"),
        missing("registry"),
    ]
    assert str(not_ready(stages, 120)) == (
        "the chain is not ready after 120 s: spark has no window: slow (whole log: logs/spark.log); "
        "cluster-publisher-1 has no window and died 2 times within 60 s: KeyError: x (whole log: "
        "logs/cluster-publisher-1.log); subscriber-1-1 has no window: no room (whole log: logs/subscriber-1-1.log); "
        "registry has no window: its log has no error (whole log: logs/registry.log); "
        "waiting for these: main-publisher. Read the whole logs, or allow more time with --ready-timeout-s"
    )


def test_error_of_a_stage_given_up_names_the_others_that_died() -> None:
    """Those with the same reason together; those that did not die are not its matter."""
    dead = missing("spark", deaths=6, error="spark.job: no Kafka answers")
    others = [
        missing("ingest", deaths=1, error="pipeline.ingest: no Kafka answers"),
        missing("registry", deaths=1, error="KeyError: x"),
        missing("main-publisher", "spark"),
    ]
    assert str(gave_up(dead, others)) == (
        "spark died 6 times within 60 s: spark.job: no Kafka answers (whole log: logs/spark.log); "
        "for the same reason died ingest; registry has no window and died: KeyError: x (whole log: logs/registry.log)"
    )
