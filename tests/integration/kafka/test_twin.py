"""The instrument on a twin: a run attaches to it as to any chain, and finds what was planted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.bench.twin import PLANTED, counts_wrong, errors
from experiments.machine import machine_lock
from experiments.parameters import Parameters
from experiments.run.measure import Result, measure
from experiments.twin import process, settings, truth
from pipeline.broker import EmbeddedKafka

pytestmark = pytest.mark.integration

CLIENTS = 4


@pytest.fixture(autouse=True)
def own_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the machine's own lock it would refuse, or be refused by, the tests that measure at the same time."""
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)


def measured(twin: settings.Twin, broker: EmbeddedKafka, folder: Path) -> tuple[Result, pd.DataFrame, truth.Figures]:
    """Return a short run of a twin, its windows, and what was planted."""
    servers = broker.bootstrap_servers
    with process.running(twin, folder / "twin", bootstrap_servers=servers, topic_prefix=f"{folder.name}-") as ready:
        parameters = Parameters(
            attach=str(ready),
            users=40,
            rate_per_s=250.0,
            clients=CLIENTS,
            # A fixed one, so that the windows with faults are measured ones.
            warm_up_triggers=2,
            warm_up_most_triggers=1,
            measured_triggers=20,
            seed=twin.seed,
        )
        result = measure(parameters, folder / "run")
    plan, windows = (pd.read_parquet(folder / "run" / f"{name}.parquet") for name in ("plan", "windows"))
    return result, windows, truth.figures(folder / "twin" / process.TRUTH, plan, CLIENTS, twin)


def test_planted_delays_and_faults_are_found(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """Every count to the last reaction, every hop, the percentiles of the excess and its worst window.

    The bounds are wide: tests share their machine. `make bench SUITE=twin` holds the narrow ones.
    """
    quick = {"trigger_s": 0.5, "flush_ms": 100, "flush_lead_ms": 50}
    twin = settings.build(PLANTED | quick | {"late_windows_ms": {9: 400.0}, "micro_batch_ms": [60.0, 120.0]})
    result, windows, expected = measured(twin, broker, tmp_path)
    found = errors(result.analysis, windows, expected)
    assert found.counts_wrong == 0
    for name in ("lost", "duplicated", "altered", "foreign", "deliveries_duplicate", "deliveries_altered"):
        assert result.analysis.summary[name] == expected.summary[name] > 0
    assert abs(found.hop_error_ms) < 20
    assert abs(found.excess_p50_error_ms) < 20
    assert abs(found.excess_p99_error_ms) < 50
    assert abs(found.worst_window_error_ms) < 20
    assert 0.4 < result.analysis.summary["excess_worst_window_s"] < 1


def test_faults_of_windows_are_found(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """A window that is delivered and never in Kafka, a count raised, counts moved, deliveries lost, a 503."""
    twin = settings.build(
        {
            "seed": 5,
            "trigger_s": 0.5,
            "flush_ms": 100,
            "micro_batch_ms": [50.0, 60.0],
            "unemitted": [8],
            "added": {10: 2},
            "moved": {12: 1},
            "refuse": 0.01,
            "lose_deliveries": 0.05,
        }
    )
    result, windows, expected = measured(twin, broker, tmp_path)
    summary = result.analysis.summary
    for name in ("accepted", "lost", "deliveries_missing"):
        # The window that Kafka does not have is due to nobody.
        assert summary[name] == expected.summary[name] - (name == "deliveries_missing") * _lost_in(tmp_path, 8)
    assert summary["accepted"] < summary["planned"]
    assert summary["deliveries_unknown"] > 0
    assert summary["unexplained"] == 2
    differing = result.analysis.oracle.differing
    assert set(differing["window"]) == {10, 12}
    assert len(differing) == 3
    assert counts_wrong(result.analysis, windows, expected) > 0


def _lost_in(folder: Path, window: int) -> int:
    deliveries = pd.read_parquet(folder / "twin" / process.TRUTH / "deliveries.parquet")
    return int(((deliveries["window"] == window) & (deliveries["fate"] == "lose")).sum())


def test_twin_that_is_told_too_much_does_not_start(tmp_path: Path) -> None:
    """One line that names the field; no ready file."""
    (tmp_path / "twin.yaml").write_text("lose: 1.5\n")
    words = [str(tmp_path / "twin.yaml"), "--ready-file", str(tmp_path / "ready.json"), "--run-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.twin", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "lose of the twin is 1.5" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ready.json").exists()
