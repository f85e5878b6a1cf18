"""The DAGs as Airflow reads them: they import, and are wired as a measurement requires.

Airflow runs in a separate process, because of its configuration and warnings, and prints what it reads as JSON.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.campaign import airflow_standalone, steps
from experiments.repository import DESIGNS
from tests.harness import airflow

DAGS = Path(__file__).parents[2] / "dags"
READ = """
import json, pathlib, sys
from airflow.configuration import conf
from airflow import plugins_manager
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import timezone
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from experiments.campaign import steps

steps.DESIGNS = pathlib.Path(sys.argv[2])
bag = DagBag(sys.argv[1], bundle_path=None)
night = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(bag.dags["emostream_nightly"]))
bounds = TimeRestriction(night.start_date, night.end_date, night.catchup)
first = night.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=bounds).run_after
options = {
    "database": ["sql_alchemy_conn"],
    "core": ["executor", "dags_folder", "auth_manager"],
    "api": ["base_url", "port"],
    "logging": ["remote_logging", "base_log_folder", "logging_config_class"],
    "scheduler": ["num_runs"],
    "secrets": ["backend"],
}
from starlette.testclient import TestClient
(given,) = plugins_manager.get_fastapi_plugins()[1]

async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

guarded = TestClient(given["middleware"](answer, *given["args"], **given["kwargs"]))
hosts = ("127.0.0.1:8085", "localhost:8085", "evil.example:8085", "127.0.0.1.evil.example")
print(json.dumps({
    "statuses": [guarded.get("/", headers={"Host": host}).status_code for host in hosts],
    "settings": {f"{name}.{key}": conf.get(name, key) for name, keys in options.items() for key in keys},
    "first_night_in_s": (first - timezone.utcnow()).total_seconds(),
    "errors": bag.import_errors,
    "warnings": bag.captured_warnings,
    "heavy": [name for name in ("pandas", "pyspark", "matplotlib", "kafka") if name in sys.modules],
    "dags": {name: DagSerialization.to_dict(dag)["dag"] for name, dag in bag.dags.items()},
    "run": [kind.__name__ for kind in bag.dags["emostream_sweep"].get_task("run").operator_class.__mro__],
}))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what Airflow reads from the folder of DAGs, with two bad files among the designs."""
    home = tmp_path_factory.mktemp("airflow")
    designs = tmp_path_factory.mktemp("designs")
    shutil.copytree(DESIGNS, designs, dirs_exist_ok=True)
    (designs / "wide.yaml").write_bytes("name: wide\nlevels: []\n".encode("utf-16"))
    (designs / "broken.yaml").write_text("name: [broken\n")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(DAGS), str(designs)],
        env=airflow.environment(home),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**printed, "home": str(home)}


def task(read: dict[str, Any], dag: str, name: str) -> dict[str, Any]:
    """Return a task as Airflow stores it; for a mapped task, with what its runs share."""
    stored = next(each["__var"] for each in read["dags"][dag]["tasks"] if each["__var"]["task_id"] == name)
    return {**stored, **stored.get("partial_kwargs", {})}


def params(read: dict[str, Any]) -> dict[str, Any]:
    """Return the sweep's trigger form: name to default, description and schema."""
    return {name: {**param, **param["schema"]["__var"]} for name, param in read["dags"]["emostream_sweep"]["params"]}


def test_dags_import_without_errors_or_warnings(read: dict[str, Any]) -> None:
    """Airflow reads both DAGs."""
    assert read["errors"] == {}
    assert read["warnings"] == {}
    assert sorted(read["dags"]) == sorted(airflow_standalone.DAGS)


def test_pages_of_other_names_reach_no_admin(read: dict[str, Any]) -> None:
    """Airflow itself reads the plugin that refuses them."""
    assert read["statuses"] == [200, 200, 400, 400]


def test_no_setting_of_another_airflow_applies(read: dict[str, Any]) -> None:
    """Its database, folders, executor and address are its own, whatever the environment and a file in its home say."""
    home, settings = read["home"], read["settings"]
    assert settings == {
        "database.sql_alchemy_conn": f"sqlite:///{home}/airflow.db",
        "core.executor": "LocalExecutor",
        "core.dags_folder": str(DAGS),
        "core.auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "api.base_url": "http://127.0.0.1:0",
        "api.port": "0",
        "logging.remote_logging": "False",
        "logging.base_log_folder": f"{home}/logs",
        "logging.logging_config_class": "",
        "scheduler.num_runs": "-1",
        "secrets.backend": "",
    }


def test_import_loads_no_heavy_packages(read: dict[str, Any]) -> None:
    """Airflow imports the files repeatedly, also during a measurement."""
    assert read["heavy"] == []


def test_sweep_is_plan_then_runs_then_reduce(read: dict[str, Any]) -> None:
    """The runs are mapped over the plan; the report comes last."""
    assert task(read, "emostream_sweep", "plan")["downstream_task_ids"] == ["run"]
    runs = task(read, "emostream_sweep", "run")
    assert runs["downstream_task_ids"] == ["reduce"]
    assert runs["_is_mapped"]
    assert runs["expand_input"]["value"]["__var"] == {"task_id": "plan", "key": "return_value"}
    assert "downstream_task_ids" not in task(read, "emostream_sweep", "reduce")


def test_runs_use_papermills_operator(read: dict[str, Any]) -> None:
    """The kernel is that of Airflow's own environment."""
    assert "PapermillOperator" in read["run"]
    assert task(read, "emostream_sweep", "run")["kernel_name"] == "python3"


def test_one_run_at_a_time(read: dict[str, Any]) -> None:
    """Two runs of a sweep, or two sweeps, never run at the same time."""
    runs = task(read, "emostream_sweep", "run")
    assert runs["pool"] == steps.POOL
    assert runs["max_active_tis_per_dag"] == 1
    assert read["dags"]["emostream_sweep"]["max_active_runs"] == 1


@pytest.mark.parametrize("dag", airflow_standalone.DAGS)
def test_nothing_is_retried(read: dict[str, Any], dag: str) -> None:
    """A repeated run is a new run of the campaign, not a second attempt of the old one."""
    assert read["dags"][dag]["default_args"]["__var"] == {"retries": 0}
    for each in read["dags"][dag]["tasks"]:
        assert task(read, dag, each["__var"]["task_id"]).get("retries", 0) == 0


def test_report_is_written_even_if_a_run_failed(read: dict[str, Any]) -> None:
    """Finished runs are kept and reported."""
    assert task(read, "emostream_sweep", "reduce")["trigger_rule"] == "all_done"


def test_form_offers_the_designs(read: dict[str, Any]) -> None:
    """Every design that can be planned in advance; the default is one of them."""
    design = params(read)["design"]
    assert design["enum"] == steps.designs()
    assert {"smoke", "concurrency", "representatives"} <= set(design["enum"])
    assert "capacity" not in design["enum"]
    assert re.search(r"Left out: design .*wide\.yaml is not text in UTF-8: it is UTF-16", design["description"])
    assert design["default"] == "smoke"


def test_form_fields_have_title_and_description(read: dict[str, Any]) -> None:
    """The campaign may be left empty."""
    assert list(params(read)) == ["design", "campaign"]
    assert all(param["title"] and param["description"].endswith(".") for param in params(read).values())
    assert params(read)["campaign"]["default"] is None
    assert "null" in params(read)["campaign"]["type"]


def test_sweep_has_no_schedule_and_nightly_is_paused(read: dict[str, Any]) -> None:
    """A sweep is triggered by hand; the nightly DAG, once switched on, waits for the next night."""
    sweep, nightly = (read["dags"][name] for name in airflow_standalone.DAGS)
    assert sweep["timetable"]["__type"].endswith("NullTimetable")
    assert sweep["is_paused_upon_creation"] is False
    night = nightly["timetable"]["__var"]
    assert 0 <= read["first_night_in_s"] <= 24 * 3600
    assert (night["expression"], night["timezone"]) == ("0 3 * * *", "UTC")
    assert nightly["is_paused_upon_creation"] is True
    assert nightly["catchup"] is False


def test_nightly_triggers_smoke_sweep_and_waits(read: dict[str, Any]) -> None:
    """The nightly DAG fails if the sweep fails."""
    smoke = task(read, "emostream_nightly", "smoke")
    assert smoke["trigger_dag_id"] == "emostream_sweep"
    assert smoke["conf"]["design"] == "smoke"
    assert smoke["conf"]["campaign"].startswith("nightly-{{")
    assert smoke["wait_for_completion"]
