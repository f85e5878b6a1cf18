"""What people set for other programs does not reach the instrument's processes; what describes the machine does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import environment
from experiments.load import closed_loop
from experiments.run import chain
from tests.harness.paths import REPOSITORY

OTHERS = {
    "AIRFLOW_HOME": "/elsewhere",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://elsewhere/airflow",
    "AIRFLOW_CONN_POSTGRES": "postgresql://elsewhere",
    "_AIRFLOW__AS_LIBRARY": "1",
    "GEVENT_RESOLVER": "dnspython",
    "IPYTHONDIR": "/elsewhere",
    "JPY_PARENT_PID": "1",
    "JUPYTER_PATH": "/elsewhere",
    "JUPYTER_GATEWAY_URL": "http://elsewhere",
    "LOCUST_RUN_TIME": "5s",
    "LOCUST_USERS": "1",
    "MATPLOTLIBRC": "/elsewhere",
    "MPLBACKEND": "no-such-backend",
    "PAPERMILL_TRANSLATOR": "x",
    "PYTHONSTARTUP": "/elsewhere/startup.py",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
}
OURS = {
    "PATH": "/bin",
    "HOME": "/home/ada",
    "TMPDIR": "/scratch",
    "HTTP_PROXY": "http://proxy",
    "MPLCONFIGDIR": "/fonts",
}


def test_settings_of_other_programs_are_left_out() -> None:
    """Whole families go by their beginnings; the machine's own variables stay."""
    kept = environment.own({**OTHERS, **OURS})
    assert set(OTHERS) & set(kept) == set()
    assert {name: kept[name] for name in OURS} == OURS
    assert kept["PYTHONUTF8"] == "1"


def test_kernel_keeps_its_files_in_its_folder(tmp_path: Path) -> None:
    """Neither the user's settings of Jupyter and IPython are read, nor is anything written beside them."""
    kept = environment.of_kernel({**OTHERS, **OURS}, tmp_path)
    names = ["IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"]
    assert [kept[name] for name in names] == [str(tmp_path)] * 4
    assert not {"JUPYTER_PATH", "JUPYTER_GATEWAY_URL", "PYTHONSTARTUP"} & set(kept)


def test_chain_of_a_run_gets_no_foreign_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the chain's own settings only the jars' folder is passed on: a run's parameters decide on the others."""
    for name, value in {**OTHERS, "EMOSTREAM_FLUSH_MS": "7", "EMOSTREAM_CACHE_DIR": "/jars"}.items():
        monkeypatch.setenv(name, value)
    kept = chain.clean_environment()
    assert set(OTHERS) & set(kept) == set()
    assert "EMOSTREAM_FLUSH_MS" not in kept
    assert kept["EMOSTREAM_CACHE_DIR"] == "/jars"


def test_locust_finds_no_configuration_of_the_user(tmp_path: Path) -> None:
    """In the environment and the folder that a run gives it, Locust itself has its defaults beside the command line."""
    home, run_dir = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    run_dir.mkdir()
    (home / ".locust.conf").write_text("run-time = 5s\nusers = 9\n", encoding="utf-8")
    script = (
        "from locust.argument_parser import get_parser\n"
        "options = get_parser().parse_args(['--users', '3'])\n"
        "print(options.num_users, options.run_time, options.headless, options.config)"
    )
    env = closed_loop.locust_environment(environment.own({**os.environ, **OTHERS, "HOME": str(home)}), run_dir)
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=run_dir, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.stdout.split() == ["3", "None", "False", "None"], done.stderr


def test_command_line_restarts_without_foreign_settings_and_names_them(tmp_path: Path) -> None:
    """One line on standard error says which variables are ignored; without any there is none."""
    command = [sys.executable, "-m", "experiments", "report", str(tmp_path / "nothing")]
    plain = {name: value for name, value in environment.own(os.environ).items() if name != "PYTHONUTF8"}
    done = [
        subprocess.run(
            command, cwd=REPOSITORY, env=env, capture_output=True, text=True, encoding="utf-8", check=False, timeout=240
        )
        for env in (plain, {**plain, "MPLBACKEND": "no-such-backend", "LOCUST_USERS": "1"})
    ]
    quiet, warned = (each.stderr.splitlines() for each in done)
    assert len(quiet) == 1
    assert warned == [
        "experiments report: ignored environment variables that are set for other programs: LOCUST_USERS MPLBACKEND",
        *quiet,
    ]
