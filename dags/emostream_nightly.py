"""Run the design `smoke` every night at 03:00 UTC, as a new campaign.

This DAG triggers `emostream_sweep` and fails if that fails. It is paused until you switch it on.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronTriggerTimetable

with DAG(
    dag_id="emostream_nightly",
    description="Run the design smoke every night",
    doc_md=__doc__,
    # After you switch it on, it waits for the next night. With a start date, or without timedelta(0), it would run at
    # once.
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
        # Airflow's triggerer waits, so that no worker process is occupied.
        deferrable=True,
        poke_interval=10,
        fail_when_dag_is_paused=True,
    )
