"""One scenario of the fault suite; `.ci/run` carries out its short profile."""

from __future__ import annotations

import pytest

from experiments.faults.carry_out import carry_out, selected

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_scenario_loses_and_doubles_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Kafka is killed under load: nothing is wrong with any reaction or window; the output says what is."""
    (outcome,) = carry_out(selected(["kafka-killed"], short=True), [1])
    assert outcome.wrong == [], capsys.readouterr().out
    assert outcome.accepted > 500
