"""Outcomes: what is left out is said, and what was lost on purpose is lost, and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from experiments.faults import carry_out
from experiments.faults.carry_out import ScenarioOutcome, figures, last_line, selected
from experiments.faults.ledger import Anomaly
from experiments.faults.suite import passed


def test_scenarios_that_this_machine_does_not_allow_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are neither passed nor failed; the figures and the last line say why they were left out."""
    nothing = SimpleNamespace(unavailable=lambda: "it needs root")
    monkeypatch.setattr(carry_out, "APART", {"network": nothing, "disk": nothing})
    said: list[str] = []
    outcomes = carry_out.carry_out(selected(["slow-network", "tmp-full"], short=False), [1, 2], said.append)
    assert said == [f"left out {name}: it needs root" for name in ("slow-network", "tmp-full") * 2]
    # As a process of the suite hands them over.
    outcomes = [ScenarioOutcome(**asdict(each)) for each in outcomes]
    made = figures([*outcomes, ScenarioOutcome("kafka-killed", 1, 1.5, 9, 8, 8)])
    assert (made["scenarios"], made["passed"], made["failed"]) == (1, 1, 0)
    assert made["left_out"] == {"slow-network": "it needs root", "tmp-full": "it needs root"}
    assert [each["name"] for each in made["outcomes"]] == ["kafka-killed"]
    assert last_line(made) == "1 of 1 passed; left out slow-network: it needs root; left out tmp-full: it needs root"
    assert passed({**made, "mutations": 8, "mutations_caught": 8})


def test_last_line_without_anything_left_out() -> None:
    """It counts."""
    outcomes = [ScenarioOutcome("one", 1, 1, 1, 1, 1), ScenarioOutcome("two", 1, 1, 1, 1, 1, ["lost: r1"])]
    assert last_line(figures(outcomes)) == "1 of 2 passed"


def test_exactly_what_kafka_lost_may_be_lost() -> None:
    """Another reaction that is lost is wrong, and so is one that is counted although its record is gone."""
    lost, other = Anomaly("lost", "r1", "not in Kafka"), Anomaly("lost", "r2", "not in Kafka")
    wrong: list[str] = []
    assert carry_out._but_for({"r1"}, [lost], wrong) == []
    assert carry_out._but_for({"r1"}, [lost, other], wrong) == [other]
    assert wrong == []
    assert carry_out._but_for({"r1", "r3"}, [lost], wrong) == []
    assert wrong == ["1 reactions are not lost, and Kafka has lost them uncounted: ['r3']"]
