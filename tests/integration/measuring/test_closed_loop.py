"""The closed loop on a real chain: Locust's own ledger joins with Kafka's records, reaction by reaction."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest

from experiments.load import closed_loop
from experiments.parameters import Parameters
from experiments.report.sentences import findings
from experiments.run.chain import Endpoints
from experiments.run.measure import measure
from pipeline import lifecycle
from tests.harness.http import get_json
from tests.harness.machines import BUSY
from tests.harness.processes import module, running
from tests.harness.waiting import until

pytestmark = pytest.mark.integration


def test_a_closed_loop_is_measured_like_any_run(ready_file: Path, tmp_path: Path) -> None:
    """Every reaction of Locust's users is accepted, found in Kafka and counted once; the report says what it is."""
    parameters = Parameters(
        loop="closed",
        users=10,
        think_s=0.3,
        clients=4,
        warm_up_triggers=1,
        # Long enough for two samples of CPU time where every core is busy.
        measured_triggers=8,
        attach=str(ready_file),
        machine="shared",
    )
    result = measure(parameters, tmp_path / "run")
    summary = result.analysis.summary
    assert summary["accepted"] == summary["planned"] == summary["in_topic"] == summary["counted"] > 0
    assert summary["foreign"] == summary["lost"] == summary["duplicated"] == 0
    assert summary["users"] == 10
    assert summary["loop"] == "closed"
    assert summary["throughput_per_s"] > 0
    assert [reason for reason in result.analysis.verdict.reasons if not reason.startswith(BUSY)] == []
    assert "closed loop" in " ".join(findings(summary, {"trigger_s": 1.0, "think_s": 0.3}))


def test_page_of_locust_shows_every_kind_of_user_at_work(chain_up: Endpoints, tmp_path: Path) -> None:
    """Fans, viewers and users with bad input start from the page, and none of their requests fails."""
    port = lifecycle.claim_port("127.0.0.1", 0, "port")
    page = f"http://127.0.0.1:{port}"
    addresses = ["--host", chain_up.ingest, "--registry", chain_up.registry, "--web-port", str(port)]
    command = module("locust", "-f", str(closed_loop.LOCUSTFILE), "--class-picker", *addresses)
    kinds = ("Fan", "Viewer", "Careless")

    def opened() -> str:
        try:
            with urllib.request.urlopen(page, timeout=240) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def requested() -> bool:
        rows = get_json(f"{page}/stats/requests")["stats"]
        assert not any(row["num_failures"] for row in rows), rows
        return {"/reactions", "/clients", "next windows", "refused 422"} <= {row["name"] for row in rows}

    with (
        (tmp_path / "locust.log").open("wb") as log,
        running(command, stdout=log, stderr=log, env=closed_loop.locust_environment(os.environ, tmp_path)),
    ):
        shown = until(opened, "Locust's page is open", 60, poll_s=0.2)
        assert all(f'"{kind}"' in shown for kind in kinds)
        form = urlencode([("user_count", 12), ("spawn_rate", 12), *(("user_classes", kind) for kind in kinds)])
        urllib.request.urlopen(f"{page}/swarm", form.encode(), timeout=240).close()
        until(requested, "every kind of user has an answer", 60, poll_s=0.2)
