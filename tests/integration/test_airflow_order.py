"""Airflow's own scheduler keeps a campaign's runs in their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import airflow

pytestmark = pytest.mark.integration

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


@pytest.mark.timeout(600)
def test_airflows_scheduler_starts_the_runs_in_their_order(tmp_path: Path) -> None:
    """Given all runs at once, it starts one at a time, by the plan's order (its own tie-break is `map_index`)."""
    chosen, _ = airflow.run_script(ORDER, airflow.environment(tmp_path), tmp_path, 500)
    assert chosen == [[index] for index in range(12)]
