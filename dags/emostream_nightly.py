"""Carry out the design `smoke` every night at three (UTC), as a campaign of its own.

It triggers `emostream_sweep` and fails if that does. It is paused until somebody switches it on.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronTriggerTimetable

with DAG(
    dag_id="emostream_nightly",
    description="The design smoke, every night",
    doc_md=__doc__,
    # Switched on, it waits for the next night: with a start date, or without the zero, it would measure at once.
    schedule=CronTriggerTimetable("0 3 * * *", timezone="UTC", run_immediately=timedelta(0)),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args={"retries": 0},
    tags=["emostream"],
):
    TriggerDagRunOperator(
        task_id="smoke",
        trigger_dag_id="emostream_sweep",
        conf={"design": "smoke", "campaign": "nightly-{{ dag_run.run_after.strftime('%Y%m%dT%H%M%S') }}"},
        wait_for_completion=True,
        # Waiting is the triggerer's: no process stands by for it.
        deferrable=True,
        poke_interval=10,
        fail_when_dag_is_paused=True,
    )
