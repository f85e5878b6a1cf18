"""The DAGs as Airflow reads them: they import, and are wired as a measurement needs it.

Airflow keeps its configuration and its warnings to a process of its own: what it reads is told to the tests as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.campaign import airflow_standalone, steps

DAGS = Path(__file__).parents[2] / "dags"
READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import timezone
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction

bag = DagBag(sys.argv[1], bundle_path=None)
night = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(bag.dags["emostream_nightly"]))
bounds = TimeRestriction(night.start_date, night.end_date, night.catchup)
first = night.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=bounds).run_after
print(json.dumps({
    "first_night_in_s": (first - timezone.utcnow()).total_seconds(),
    "errors": bag.import_errors,
    "warnings": bag.captured_warnings,
    "heavy": [name for name in ("pandas", "pyspark", "matplotlib", "kafka") if name in sys.modules],
    "dags": {name: DagSerialization.to_dict(dag)["dag"] for name, dag in bag.dags.items()},
    "run": [one.__name__ for one in bag.dags["emostream_sweep"].get_task("run").operator_class.__mro__],
}))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow says of the folder of DAGs."""
    home = tmp_path_factory.mktemp("airflow")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(DAGS)],
        env=airflow_standalone.environment(home, 0, os.environ),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def task(read: dict[str, Any], dag: str, name: str) -> dict[str, Any]:
    """Return a task as Airflow stores it; of a mapped one what all of its runs share, too."""
    stored = next(one["__var"] for one in read["dags"][dag]["tasks"] if one["__var"]["task_id"] == name)
    return {**stored, **stored.get("partial_kwargs", {})}


def params(read: dict[str, Any]) -> dict[str, Any]:
    """Return the sweep's trigger form: name to default, description and schema."""
    return {name: {**one, **one["schema"]["__var"]} for name, one in read["dags"]["emostream_sweep"]["params"]}


def test_the_files_import_without_errors_or_warnings(read: dict[str, Any]) -> None:
    """Both DAGs are read, and nothing is complained of."""
    assert read["errors"] == {}
    assert read["warnings"] == {}
    assert sorted(read["dags"]) == sorted(airflow_standalone.DAGS)


def test_reading_them_is_light(read: dict[str, Any]) -> None:
    """Airflow reads the files again and again, beside a measurement: what computes is not imported for that."""
    assert read["heavy"] == []


def test_a_sweep_is_plan_then_runs_then_reduce(read: dict[str, Any]) -> None:
    """The runs are mapped over the plan, and the report comes last."""
    assert task(read, "emostream_sweep", "plan")["downstream_task_ids"] == ["run"]
    runs = task(read, "emostream_sweep", "run")
    assert runs["downstream_task_ids"] == ["reduce"]
    assert runs["_is_mapped"]
    assert runs["expand_input"]["value"]["__var"] == {"task_id": "plan", "key": "return_value"}
    assert "downstream_task_ids" not in task(read, "emostream_sweep", "reduce")


def test_the_runs_are_papermills(read: dict[str, Any]) -> None:
    """A run is papermill's operator, with the kernel of the environment that Airflow is in."""
    assert "PapermillOperator" in read["run"]
    assert task(read, "emostream_sweep", "run")["kernel_name"] == "python3"


def test_one_run_at_a_time(read: dict[str, Any]) -> None:
    """Neither two runs of a sweep nor two sweeps go on at once."""
    runs = task(read, "emostream_sweep", "run")
    assert runs["pool"] == steps.POOL
    assert runs["max_active_tis_per_dag"] == 1
    assert read["dags"]["emostream_sweep"]["max_active_runs"] == 1


@pytest.mark.parametrize("dag", airflow_standalone.DAGS)
def test_nothing_is_retried(read: dict[str, Any], dag: str) -> None:
    """A run made again is a new run of the campaign, not another try of the old one."""
    assert read["dags"][dag]["default_args"]["__var"] == {"retries": 0}
    for one in read["dags"][dag]["tasks"]:
        assert task(read, dag, one["__var"]["task_id"]).get("retries", 0) == 0


def test_the_report_is_written_even_if_a_run_failed(read: dict[str, Any]) -> None:
    """What was finished is kept and reduced whatever became of the rest."""
    assert task(read, "emostream_sweep", "reduce")["trigger_rule"] == "all_done"


def test_the_form_offers_the_designs(read: dict[str, Any]) -> None:
    """Every design that can be planned is to choose from, and the default is one of them."""
    design = params(read)["design"]
    assert design["enum"] == steps.designs()
    assert {"smoke", "concurrency", "representatives"} <= set(design["enum"])
    assert "capacity" not in design["enum"]
    assert design["default"] == "smoke"


def test_the_form_says_what_its_fields_are(read: dict[str, Any]) -> None:
    """Each field has a title and a sentence; the campaign may be left empty."""
    assert list(params(read)) == ["design", "campaign"]
    assert all(one["title"] and one["description"].endswith(".") for one in params(read).values())
    assert params(read)["campaign"]["default"] is None
    assert "null" in params(read)["campaign"]["type"]


def test_a_sweep_waits_for_somebody_and_the_night_for_being_switched_on(read: dict[str, Any]) -> None:
    """A sweep has no schedule and can be triggered at once; the nightly one, once switched on, waits for the night."""
    sweep, nightly = (read["dags"][name] for name in airflow_standalone.DAGS)
    assert sweep["timetable"]["__type"].endswith("NullTimetable")
    assert sweep["is_paused_upon_creation"] is False
    night = nightly["timetable"]["__var"]
    assert 0 <= read["first_night_in_s"] <= 24 * 3600
    assert (night["expression"], night["timezone"]) == ("0 3 * * *", "UTC")
    assert nightly["is_paused_upon_creation"] is True
    assert nightly["catchup"] is False


def test_the_night_triggers_a_sweep_of_smoke_and_waits_for_its_end(read: dict[str, Any]) -> None:
    """The nightly DAG measures nothing itself: it has the sweep do it, and fails with it."""
    smoke = task(read, "emostream_nightly", "smoke")
    assert smoke["trigger_dag_id"] == "emostream_sweep"
    assert smoke["conf"]["design"] == "smoke"
    assert smoke["conf"]["campaign"].startswith("nightly-{{")
    assert smoke["wait_for_completion"]
