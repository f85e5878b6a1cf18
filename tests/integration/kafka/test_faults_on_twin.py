"""Faults planted in a twin, which a real run finds: the twins of the instrument's short check, on the tests' Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.instrument import live
from experiments.instrument.carry_out import SHORT_TWINS
from experiments.instrument.live_faults import TWIN
from experiments.machine import machine_lock
from pipeline.broker import EmbeddedKafka

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_faults_on_a_twin_are_caught_and_a_clean_one_gives_no_alarm(
    broker: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each under its name; those that the catalogue plants together are in one run."""
    # It judges no time, and need not wait for the tests that measure at the same time.
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    place = live.Place(tmp_path, "shared", broker.bootstrap_servers)
    runs: dict[str, list[str]] = {}
    for name in SHORT_TWINS:
        runs.setdefault(TWIN[name].run or name, []).append(name)
    outcomes = [
        outcome for run, names in runs.items() for outcome in live.on_twin([TWIN[name] for name in names], place, run)
    ]
    assert [outcome.name for outcome in outcomes] == list(SHORT_TWINS)
    assert [outcome for outcome in outcomes if not outcome.named] == []
    assert live.clean_twin(place, "clean") == []
