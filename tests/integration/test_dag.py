"""The sweep's DAG drives the chain, and Airflow's own scheduler keeps its runs in their order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.campaign import airflow_standalone
from experiments.repository import ROOT

pytestmark = pytest.mark.integration

DESIGN = """\
name: tiny
about: As little as a campaign can be.
seed: 5
warm_up_triggers: 1
measured_triggers: 2
parameters: {trigger_s: 2, rate_per_s: 40, clients: 2, clusters: 1, subscribers: 1, ingest_workers: 1}
levels: [{users: 5}]
slos: {lost: 0, duplicated: 0, oracle_share: 1.0, deliveries_missing: 0, deliveries_duplicate: 0}
"""
# Designs and reports of the test's own instead of the project's, then the DAG as its file has it.
GIVEN = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.models.pool import Pool
from airflow.utils.db import initdb
from experiments.campaign import steps

steps.DESIGNS, steps.REPORTS = Path(sys.argv[1]), Path(sys.argv[2])
initdb()
Pool.create_or_update_pool(steps.POOL, 1, "One run at a time", include_deferred=False)
DagBundlesManager().sync_bundles_to_db()
bag = BundleDagBag(sys.argv[3], bundle_path=Path(sys.argv[3]), bundle_name="dags-folder")
sync_bag_to_db(bag, "dags-folder", None)
dag = bag.dags["emostream_sweep"]
"""
WHOLE = """
ended = dag.test(run_conf={"design": "tiny", "campaign": "by-airflow"})
print(json.dumps({one.task_id + str(one.map_index): one.state for one in ended.get_task_instances()}))
"""
# The mapped runs are made and scheduled as the scheduler does it, then it is asked time and again what it would start.
ORDER = """
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskmap import TaskMap
from airflow.models.xcom import XComModel
from airflow.sdk import timezone
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import update

with create_session() as session:
    stored = SerializedDagModel.get_dag("emostream_sweep", session=session)
    now = timezone.utcnow()
    run = stored.create_dagrun(
        run_id="order", run_after=now, run_type=DagRunType.MANUAL, triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING, session=session, logical_date=now, data_interval=(now, now),
        conf={"design": "tiny"}, start_date=now,
    )
    run.dag = stored
    entries = [{"index": index, "title": str(index), "input_nb": "x", "parameters": {}} for index in range(12)]
    XComModel.set("return_value", entries, dag_id=run.dag_id, task_id="plan", run_id="order", session=session)
    session.add(TaskMap(dag_id=run.dag_id, task_id="plan", run_id="order", map_index=-1, length=12, keys=None))
    run.get_task_instance("plan", session=session).state = TaskInstanceState.SUCCESS
    session.flush()
    due, _ = run.update_state(session=session, execute_callbacks=False)
    run.schedule_tis(sorted(due, key=lambda one: one.map_index, reverse=True), session=session)
    session.flush()
    scheduler = SchedulerJobRunner(job=Job())
    chosen = []
    for _ in range(12):
        started = scheduler._executable_task_instances_to_queued(max_tis=32, session=session)
        chosen.append([one.map_index for one in started])
        # They come detached from the session.
        ids = [one.id for one in started]
        session.execute(update(TaskInstance).where(TaskInstance.id.in_(ids)).values(state=TaskInstanceState.SUCCESS))
        session.expire_all()
print(json.dumps(chosen))
"""


@pytest.fixture(scope="module")
def airflow_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow of the tests' own, with a database and a pool of its own."""
    return airflow_standalone.environment(tmp_path_factory.mktemp("airflow"), 0, os.environ)


def told(script: str, env: dict[str, str], place: Path, timeout_s: float) -> tuple[object, str]:
    """Run `script` with designs and reports in `place`; return the JSON that it prints last, and its log."""
    designs = place / "designs"
    designs.mkdir()
    (designs / "tiny.yaml").write_text(DESIGN)
    # The form's default has to be among the designs.
    (designs / "smoke.yaml").write_text(DESIGN)
    words = [
        sys.executable,
        "-c",
        GIVEN + script,
        str(designs),
        str(place / "reports"),
        str(ROOT / "dags"),
    ]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1]), done.stdout[-8000:] + done.stderr[-8000:]


@pytest.mark.timeout(180)
def test_airflows_scheduler_starts_the_runs_in_their_order(airflow_env: dict[str, str], tmp_path: Path) -> None:
    """Given all runs at once, it starts one at a time, by the plan's order (its own tie-break is `map_index`)."""
    chosen, _ = told(ORDER, airflow_env, tmp_path, 100)
    assert chosen == [[index] for index in range(12)]


@pytest.mark.timeout(400)
def test_a_tiny_sweep_drives_the_chain(airflow_env: dict[str, str], tmp_path: Path) -> None:
    """Plan, a run on a real chain, and the report, each count right; the DAG ends as the campaign's verdict says."""
    states, log = told(WHOLE, airflow_env, tmp_path, 380)
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
