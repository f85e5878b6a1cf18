"""The sweep's DAG drives the chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import airflow

pytestmark = pytest.mark.integration

WHOLE = """
ended = dag.test(run_conf={"design": "tiny", "campaign": "by-airflow"})
print(json.dumps({one.task_id + str(one.map_index): one.state for one in ended.get_task_instances()}))
"""


@pytest.mark.timeout(600)
def test_a_tiny_sweep_drives_the_chain(tmp_path: Path) -> None:
    """Plan, a run on a real chain, and the report, each count right; the DAG ends as the campaign's verdict says."""
    states, log = airflow.run_script(WHOLE, airflow.environment(tmp_path), tmp_path, 560)
    campaign = tmp_path / "reports" / "by-airflow"
    assert (campaign / "index.html").exists(), log
    state = json.loads((campaign / "campaign.json").read_text())
    assert [run["index"] for run in state["runs"]] == [0], log
    assert state["abandoned"] == []
    # A machine that is busy with other things makes a run INVALID, and then the DAG has to fail.
    good = all(run["passed"] for run in state["runs"])
    assert states == {
        "plan-1": "success",
        "run0": "success",
        "reduce-1": "success" if good else "failed",
    }, log
    for run in state["runs"]:
        left = campaign / "runs" / run["run"]
        assert (left / "executed.ipynb").exists()
        about = json.loads((left / "manifest.json").read_text())
        assert about["parameters"]["users"] == state["order"][run["index"]]["factors"]["users"]
        assert "notebook_sha256" in about
        summary = json.loads((left / "summary.json").read_text())
        assert summary["accepted"] > 0
        assert summary["lost"] == summary["duplicated"] == summary["deliveries_missing"] == 0
