"""`python -m experiments airflow`: Airflow on this machine with the DAGs of `dags/`, until Ctrl-C.

Its four components are started here and not by `airflow standalone`, which at its end waits for the runs under way or
leaves them running. Here a run under way is interrupted, and stops its chain, before anything else ends.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import psutil

from experiments import environment as instrument
from experiments.campaign import steps
from experiments.repository import DAG_FILES, REPORTS, ROOT
from pipeline import direct_http, jars, lifecycle
from pipeline.errors import EmoStreamError, SettingError

HOST = "127.0.0.1"
# Not 8080: the registry uses it, and it is Airflow's own default.
PORT = 8085
HOME = ROOT / "run" / "airflow"
PLUGINS = Path(__file__).parent / "airflow_plugins"
PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
DAGS = ("emostream_sweep", "emostream_nightly")
API = "api-server"
OTHERS = ("scheduler", "dag-processor", "triggerer")
START_TIMEOUT_S = 180.0
CONFIGURATION = "emostream.cfg"
# A chain stops, ingest flushing first, and the notebook is saved.
RUN_END_S = 90.0
END_S = 20.0
POLL_S = 0.2


def environment(home: Path, port: int, base: Mapping[str, str], reports: Path = REPORTS) -> dict[str, str]:
    """Return `base` with the settings of an Airflow that serves this machine only, with its state in `home`.

    No other setting of Airflow applies, so that it never uses another one's database, folder or connections: variables
    that begin with AIRFLOW are left out, and a configuration file that may be in `home` already is not read.
    """
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONFIG": str(home / CONFIGURATION),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILES),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Its default of 30 s is too short while a measurement uses the machine.
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # One process carries out the one run at a time; the other plans or reduces meanwhile.
        "AIRFLOW__CORE__PARALLELISM": "2",
        # There is no password: every user is an admin, so the port is open on loopback only, and a plugin refuses
        # requests for other names.
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{HOST}:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__INSTANCE_NAME": "EmoStream",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        # Everything beside a measurement takes its CPU: check rarely changing files rarely.
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        steps.REPORTS_VARIABLE: str(reports),
        # The notebook's kernel starts in ROOT and imports the packages there.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), base.get("PYTHONPATH", "")])),
    }
    # Its tasks ask its API, and nothing else.
    own = instrument.without_proxies(instrument.own(base))
    return {**_identity(home), **own, **settings}


def _identity(home: Path) -> dict[str, str]:
    """Return a home and a user's name, which Airflow needs: a container's user may have neither."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user-{os.getuid()}"
    return {"HOME": str(home), "USER": user}


class Standalone:
    """Airflow's components, each in its own session: a Ctrl-C at the terminal reaches only this process."""

    def __init__(self, home: Path, port: int, reports: Path) -> None:
        self._env = environment(home, port, os.environ, reports)
        self._url = f"http://{HOST}:{port}"
        self._logs = home / "logs"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, stop: Event) -> None:
        """Start everything, print the addresses, stay until `stop`. Raises EmoStreamError if a component ends."""
        self._logs.mkdir(parents=True, exist_ok=True)
        print("Starting Airflow: its database is created or updated first.", file=sys.stderr)
        self._once("db", "migrate")
        self._once("pools", "set", steps.POOL, "1", "One measured run at a time")
        if stop.is_set():
            return
        try:
            self._start(API)
            # A task that starts before the API answers fails at once, and a sweep that was cut off may have one due.
            self._await(stop, lambda: [part for part in unready(self._url) if part == API])
            for name in OTHERS:
                self._start(name)
            self._await(stop, lambda: unready(self._url))
            if not stop.is_set():
                self._say()
            while not stop.wait(POLL_S):
                self._look()
        finally:
            self._end()

    def _once(self, *words: str) -> None:
        done = subprocess.run(
            _airflow(*words),
            env=self._env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            # A Ctrl-C waits some seconds: a half-migrated database would be worse.
            start_new_session=True,
        )
        if done.returncode:
            raise EmoStreamError(f"`airflow {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()[-2000:]}")

    def _start(self, name: str) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                _airflow(name),
                env=self._env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if name != "scheduler":
            # The runs are the scheduler's children. All other components give way to the measurement.
            psutil.Process(self._running[name].pid).nice(19)

    def _look(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                raise EmoStreamError(f"Airflow's {name} ended: see {self._logs / name}.log")

    def _await(self, stop: Event, lacking: Callable[[], list[str]]) -> None:
        """Return once `lacking` returns nothing, or `stop` is set."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while left := lacking():
            self._look()
            if stop.wait(POLL_S):
                return
            if time.monotonic() > deadline_s:
                raise EmoStreamError(
                    f"Airflow was not ready within {START_TIMEOUT_S:g} s (not ready: {', '.join(left)}): "
                    f"see {self._logs}"
                )

    def _say(self) -> None:
        print(
            f"Airflow is ready: {self._url}\n"
            f"  carry out a design:  {self._url}/dags/emostream_sweep (Trigger)\n"
            f"  smoke every night:   {self._url}/dags/emostream_nightly (paused until you switch it on)\n"
            f"  logs:                {self._logs}\n"
            "Ctrl-C stops it, and a run that is under way.",
            flush=True,
        )

    def _end(self) -> None:
        """End the scheduler and its runs first, then the rest: the API must still record how a run ended."""
        family = _family(self._running.values())
        scheduler = self._running.get("scheduler")
        if scheduler is not None and scheduler.poll() is None:
            # From now on it starts no run, and waits for those it has started.
            scheduler.terminate()
            deadline_s = time.monotonic() + RUN_END_S
            interrupted: set[int] = set()
            while scheduler.poll() is None and time.monotonic() < deadline_s:
                interrupted |= interrupt_kernels(scheduler.pid, interrupted)
                time.sleep(POLL_S)
            family |= _family(self._running.values())
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        _, left = psutil.wait_procs(family, timeout=END_S)
        for remaining in left:
            with suppress(psutil.NoSuchProcess):
                remaining.kill()
        psutil.wait_procs(left, timeout=END_S)


def unready(url: str) -> list[str]:
    """Return what the Airflow at `url` still lacks: its API, its components, our DAGs; empty if it is ready."""
    try:
        health = _get(f"{url}/api/v2/monitor/health")
        lacking = [part for part in PARTS if (health.get(part) or {}).get("status") != "healthy"]
        known = {dag["dag_id"] for dag in _get(f"{url}/api/v2/dags")["dags"]}
    except (OSError, ValueError):
        return [API]
    return lacking + [f"DAG {name}" for name in DAGS if name not in known]


def _get(url: str) -> dict[str, Any]:
    with direct_http.get(url, timeout_s=5.0) as answer:
        body: dict[str, Any] = json.load(answer)
        return body


def interrupt_kernels(pid: int, but: Set[int] = frozenset()) -> set[int]:
    """Interrupt the notebooks' kernels below process `pid`, except those of the ids in `but`; return their ids.

    Once each: a second interrupt would disturb a run that is stopping its chain.
    """
    found = set()
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.pid not in but and any("ipykernel" in word for word in child.cmdline()):
                    child.send_signal(signal.SIGINT)
                    found.add(child.pid)
    return found


def _airflow(*words: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *words]


def _family(processes: Iterable[subprocess.Popen[bytes]]) -> set[psutil.Process]:
    """Return the processes that run, and all their descendants."""
    found: set[psutil.Process] = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            found |= {parent, *parent.children(recursive=True)}
    return found


def main(home: Path, port: int, reports: Path) -> None:
    """Run Airflow until SIGTERM or Ctrl-C.

    Raises SettingError for a `port` outside 1 to 65535, PortInUseError, EmoStreamError if Airflow is not installed.
    """
    if not 1 <= port <= 65_535:
        raise SettingError(f"--port is {port}: give 1 to 65535")
    if importlib.util.find_spec("airflow") is None:
        raise EmoStreamError("Airflow is not installed: run `make env`, or install the wheel as `emostream[airflow]`")
    stop = lifecycle.stop_event()
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    lifecycle.claim_port(HOST, port, "--port")
    # Through a proxy, if there is one: the runs have none.
    jars.kafka_classpath()
    jars.spark_connector_jars()
    Standalone(home, port, reports).run(stop)
