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


def environment(home: Path) -> dict[str, str]:
    """Return the environment of an Airflow whose state is in `home`."""
    return airflow_standalone.environment(home, 0, os.environ)


def run_script(script: str, env: dict[str, str], place: Path, timeout_s: float) -> tuple[object, str]:
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
