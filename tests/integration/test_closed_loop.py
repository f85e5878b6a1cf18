"""The closed loop on a real chain: Locust's own ledger joins with Kafka's records, reaction by reaction."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.parameters import Parameters
from experiments.report.sentences import findings
from experiments.run.measure import measure

pytestmark = pytest.mark.integration


def test_a_closed_loop_is_measured_like_any_run(ready_file: Path, tmp_path: Path) -> None:
    """Every reaction of Locust's users is accepted, found in Kafka and counted once; the report says what it is."""
    parameters = Parameters(
        loop="closed",
        users=10,
        think_s=0.3,
        clients=4,
        warm_up_triggers=1,
        measured_triggers=3,
        attach=str(ready_file),
    )
    result = measure(parameters, tmp_path / "run")
    summary = result.analysis.summary
    assert summary["accepted"] == summary["planned"] == summary["in_topic"] == summary["counted"] > 0
    assert summary["foreign"] == summary["lost"] == summary["duplicated"] == 0
    assert summary["users"] == 10
    assert summary["loop"] == "closed"
    assert summary["throughput_per_s"] > 0
    assert result.analysis.verdict.reasons == ()
    assert "closed loop" in " ".join(findings(summary, {"trigger_s": 2.0, "think_s": 0.3}))
