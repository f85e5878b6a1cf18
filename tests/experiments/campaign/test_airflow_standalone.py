"""The settings of a standalone Airflow, and when it counts as ready."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as command_line
from experiments.campaign import airflow_standalone
from tests.harness import airflow

HEALTH = {part: {"status": "healthy"} for part in airflow_standalone.PARTS}
KNOWN = {"dags": [{"dag_id": name} for name in airflow_standalone.DAGS]}


def answers(monkeypatch: pytest.MonkeyPatch, health: dict, dags: dict) -> None:
    """Have Airflow answer so."""
    monkeypatch.setattr(airflow_standalone, "_get", lambda url: health if url.endswith("/health") else dags)


def test_it_serves_this_machine_alone() -> None:
    """It has no password and every user is an admin, so it listens on loopback only."""
    env = airflow_standalone.environment(Path("/home/of"), 8085, {})
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "True"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8085/execution/"


def test_its_dags_are_ours_and_import_our_packages() -> None:
    """The folder of DAGs is the repository's, and what they import is found wherever Airflow was installed."""
    env = airflow_standalone.environment(Path("/home/of"), 8085, {"PYTHONPATH": "/mine", "KEPT": "1"})
    root = Path(__file__).parents[3]
    assert Path(env["AIRFLOW__CORE__DAGS_FOLDER"]) == root / "dags"
    assert env["PYTHONPATH"] == f"{root}:/mine"
    assert env["KEPT"] == "1"


def test_it_has_no_setting_of_another_airflow_and_no_proxy(tmp_path: Path) -> None:
    """Its components ask each other on loopback; a proxy could refuse that."""
    proxies = dict.fromkeys(["http_proxy", "HTTPS_PROXY", "all_proxy", "NO_PROXY"], "socks5://proxy:1")
    given = {**airflow.another_airflow(tmp_path), **proxies, "JUPYTER_PATH": "/elsewhere", "HOME": "/home/ada"}
    env = airflow_standalone.environment(tmp_path, 8085, given)
    assert {name for name in env if name in given} <= {*airflow_standalone.environment(tmp_path, 8085, {}), "HOME"}
    assert [name for name, value in env.items() if value == given.get(name)] == ["HOME"]


def test_user_without_a_name_or_home_gets_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow does not start without them; a container's user may have neither."""
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(user_id: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user_id}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    env = airflow_standalone.environment(tmp_path, 8085, {})
    assert env["HOME"] == str(tmp_path)
    assert env["USER"] == f"user-{os.getuid()}"


def test_ready_is_when_all_parts_are_healthy_and_our_dags_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses are printed once everything is ready."""
    answers(monkeypatch, HEALTH, KNOWN)
    assert airflow_standalone.unready("http://x") == []


@pytest.mark.parametrize("status", [{"status": "unhealthy"}, {"status": None}, None])
def test_a_part_that_is_not_healthy_is_named(monkeypatch: pytest.MonkeyPatch, status: dict | None) -> None:
    """A component that is unhealthy, has not reported or is missing makes it unready."""
    answers(monkeypatch, {**HEALTH, "scheduler": status}, KNOWN)
    assert airflow_standalone.unready("http://x") == ["scheduler"]


def test_a_dag_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """DAGs appear only once their files were parsed."""
    answers(monkeypatch, HEALTH, {"dags": KNOWN["dags"][:1]})
    assert airflow_standalone.unready("http://x") == [f"DAG {airflow_standalone.DAGS[1]}"]


def test_nobody_there_is_not_ready() -> None:
    """A refused connection is not an error while it starts."""
    assert airflow_standalone.unready("http://127.0.0.1:9") == [airflow_standalone.API]


def test_kernels_below_a_process_are_interrupted() -> None:
    """Only a notebook's kernel gets the Ctrl-C, and gets it as a Ctrl-C, once."""
    waits = (
        # Tests in the background ignore the signal, and children inherit that.
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n print(1, flush=True)\n time.sleep(60)\nexcept KeyboardInterrupt:\n print('interrupted')"
    )
    starts = (
        "import subprocess, sys\n"
        "ours, other = (subprocess.Popen([sys.executable, '-c', sys.argv[1], name], stdout=subprocess.PIPE, text=True)"
        " for name in ('ipykernel_launcher', 'else'))\n"
        "ours.stdout.readline(), other.stdout.readline()\n"
        "print('both', flush=True)\n"
        "print(ours.communicate()[0].strip(), other.poll(), flush=True)\n"
        "other.kill()"
    )
    with subprocess.Popen([sys.executable, "-c", starts, waits], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "both\n"
        interrupted = airflow_standalone.interrupt_kernels(parent.pid)
        assert len(interrupted) == 1
        assert airflow_standalone.interrupt_kernels(parent.pid, interrupted) == set()
        assert parent.stdout.readline() == "interrupted None\n"


def test_a_port_in_use_ends_it_with_the_remedy() -> None:
    """The port is claimed before anything is started or written."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "experiments", "airflow", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert f"--port is {port}" in done.stderr


@pytest.mark.parametrize("port", ["-1", "0", "65536"])
def test_a_port_that_cannot_exist_ends_it_with_the_bounds(port: str) -> None:
    """0 is refused as well: Airflow needs the number before it starts."""
    with pytest.raises(SystemExit, match=f"experiments airflow: --port is {port}: give 1 to 65535"):
        command_line.main(["airflow", "--port", port])
