"""Airflow in a process of its own, with a database, designs and reports of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from experiments.campaign import airflow_standalone
from experiments.repository import ROOT

DESIGN = """\
name: tiny
about: As little as a campaign can be.
seed: 5
warm_up_triggers: 1
measured_triggers: 2
parameters:
  {machine: shared, trigger_s: 1, rate_per_s: 40, clients: 2, clusters: 1, subscribers: 1, ingest_workers: 1}
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


def another_airflow(place: Path) -> dict[str, str]:
    """Return variables of another Airflow, whose database would be `place`/another.db; its files are in `place`."""
    database = f"sqlite:///{place}/another.db"
    for name in ("airflow.cfg", "another.cfg"):
        (place / name).write_text(f"[database]\nsql_alchemy_conn = {database}\n", encoding="utf-8")
    return {
        "AIRFLOW_HOME": str(place / "another"),
        "AIRFLOW_CONFIG": str(place / "another.cfg"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": f"echo {database}",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__DAGS_FOLDER": str(place),
        "AIRFLOW__CORE__AUTH_MANAGER": "another.Manager",
        "AIRFLOW__CORE__FERNET_KEY": "another",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__API__BASE_URL": "https://airflow.example.invalid",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": "[]",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "another.LOGGING",
        "AIRFLOW__SCHEDULER__NUM_RUNS": "1",
        "AIRFLOW__SECRETS__BACKEND": "another.Backend",
        "AIRFLOW_CONN_AIRFLOW_DB": database,
        "AIRFLOW_VAR_REPORTS": "another",
        "_AIRFLOW__AS_LIBRARY": "1",
        "_AIRFLOW_DB_MIGRATE": "true",
    }


def environment(home: Path) -> dict[str, str]:
    """Return the environment of an Airflow whose state is in `home`, where another one's settings are present."""
    return airflow_standalone.environment(home, 0, {**os.environ, **another_airflow(home)})


def run_script(script: str, env: dict[str, str], place: Path, timeout_s: float) -> tuple[object, str]:
    """Run `script` with designs and reports in `place`; return the JSON that it prints last, and its log."""
    designs = place / "designs"
    designs.mkdir()
    (designs / "tiny.yaml").write_text(DESIGN, encoding="utf-8")
    # The form's default has to be among the designs.
    (designs / "smoke.yaml").write_text(DESIGN, encoding="utf-8")
    words = [
        sys.executable,
        "-c",
        GIVEN + script,
        str(designs),
        str(place / "reports"),
        str(ROOT / "dags"),
    ]
    done = subprocess.run(
        words, env=env, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert not list(place.glob("another.db*")), "another Airflow's database was made"
    return json.loads(done.stdout.splitlines()[-1]), done.stdout[-8000:] + done.stderr[-8000:]
