"""The delivery benchmark as a whole, with a few clients: real Kafka, registry, subscribers and crowds."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from experiments.bench.delivery.measurements import delivery
from experiments.bench.delivery.sizes import Sizes
from experiments.machine import machine_lock

pytestmark = pytest.mark.integration

FEW = Sizes(
    clients=40,
    rate_per_s=100.0,
    windows=5,
    pace_s=0.2,
    levels=(5, 10),
    level_s=0.5,
    steady=10,
    others=5,
    churn_per_s=10.0,
    rounds=2,
    round_s=1.0,
    killed=10,
)


@pytest.mark.timeout(600)
def test_the_benchmark_measures_every_part_and_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure is there and can be written; nobody missed anything; each process it started has ended."""
    # With the machine's own lock it would refuse, or be refused by, the tests that measure at the same time.
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    figures = delivery(FEW)
    json.dumps(figures, allow_nan=False)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert figures["clients"] == 40
    for name in ("first_byte_p99_s", "publish_to_last_p99_s", "messages_per_cpu_s", "churn_p99_ratio"):
        assert figures[name] > 0
    assert figures["kb_per_connection"] is not None
    for name in ("lost", "duplicated", "reordered", "churn_missed", "failover_missed"):
        assert figures[name] == 0, figures
    # About half each: an announcement in the middle of the registrations counts none of them yet.
    spread = figures["fan_in"]["clients_per_subscriber"]
    assert set(spread) == {"1/1", "1/2"}
    assert sum(spread.values()) == 40
    assert min(spread.values()) >= 10
    assert [level["clients"] for level in figures["fan_out"]["levels"]] == [5, 10]
    assert figures["churn"]["comers"]["came"] == 20
    failover = figures["failover"]
    # About half of twenty, for the same reason.
    assert 5 <= failover["killed_clients"] <= 15
    assert failover["not_back"] == failover["lost"] == failover["duplicated"] == failover["the_others"]["lost"] == 0
    assert figures["failover_s"] > 0
    for part in ("fan_in", "fan_out", "churn", "failover"):
        assert figures[part].get("strange", 0) == 0
