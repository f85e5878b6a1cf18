"""Runs a whole chain on one machine: starts every stage, restarts what dies, takes everything down.

Circus keeps the processes; this module says which, in what order they stop, and when the chain is ready.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circus.watcher import Watcher

from pipeline import jars, java, lifecycle, logs
from pipeline.addresses import url_of
from pipeline.bus.kafka import KafkaBus
from pipeline.errors import EmoStreamError
from pipeline.messages import Announcement
from pipeline.settings import Settings, to_env
from pipeline.supervisor import metrics_ports
from pipeline.supervisor.arbiter import ChainArbiter
from pipeline.supervisor.lock_file import LockFile
from pipeline.supervisor.plan import Stage, stages
from pipeline.supervisor.readiness import await_first_window

log = logs.get(__name__)

CHECK_S = 0.5
STOP_S = 15.0
# A stage that dies this often within this time will not recover by being started once more.
DEATHS_MAX = 6
DEATHS_WITHIN_S = 60.0
KAFKA_START_S = 60.0
# Each stage writes its log itself. Through circus's pipes a stage could not be started again when several died at
# once, and would lose its log, or end, with the supervisor.
INTO_LOG = 'log=$1; shift; exec "$@" >>"$log" 2>&1'
# What whoever measures this chain has to know of it.
SAID_SETTINGS = (
    *("clusters", "subscribers", "trigger_s", "group_size", "policy", "ingest_workers"),
    *("flush_ms", "flush_phase", "flush_lead_ms", "ack"),
)


class Supervisor:
    """One chain. `run` blocks until the chain has ended; `failure` says why, if it did not end by request."""

    def __init__(self, settings: Settings, ready_file: Path | None, ready_timeout_s: float) -> None:
        self._given = settings
        self._ready_file = ready_file
        self._ready_timeout_s = ready_timeout_s
        self._stop = threading.Event()
        self._spawns: dict[str, deque[float]] = defaultdict(deque)
        self._metered: dict[str, str] = {}
        self.failure: EmoStreamError | None = None

    def run(self) -> None:
        """Start everything, stay, take everything down. Raises EmoStreamError when the chain could not be kept."""
        started_s = time.monotonic()
        run_dir = Path(self._given.run_dir).resolve()
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        with LockFile(run_dir) as mark:
            java.find_java()
            jars.kafka_classpath()
            jars.spark_connector_jars()
            settings, broker_port = self._with_addresses(run_dir)
            sockets = Path(tempfile.mkdtemp(prefix="emostream-"))
            try:
                plan = stages(settings, broker_port, str(run_dir / "kafka"))
                plan, self._metered = metrics_ports.with_ports(plan, self._given)
                arbiter = self._arbiter(plan, settings, sockets)
                ready = threading.Thread(
                    target=self._announce,
                    args=(arbiter, settings, started_s, sockets, mark),
                    name="ready",
                    daemon=True,
                )
                arbiter.loop.add_callback(ready.start)
                # The handlers of SIGTERM and SIGINT are the arbiter's; this thread asks by signal, too.
                lifecycle.follow_parent(always=True, grace_s=3 * STOP_S)
                arbiter.start()
            finally:
                self._stop.set()
                shutil.rmtree(sockets, ignore_errors=True)
                if self._ready_file is not None:
                    self._ready_file.unlink(missing_ok=True)
        if self.failure is not None:
            raise self.failure

    def _with_addresses(self, run_dir: Path) -> tuple[Settings, int | None]:
        given = self._given
        changes: dict[str, object] = {
            "run_dir": str(run_dir),
            # Each stage that needs one is told its own.
            "metrics_port": 0,
            "ingest_port": lifecycle.claim_port(given.host, given.ingest_port, "ingest_port"),
            "registry_port": lifecycle.claim_port(given.host, given.registry_port, "registry_port"),
        }
        broker_port = None
        if not given.bootstrap_servers:
            broker_port = lifecycle.claim_port("127.0.0.1", 0, "broker port")
            changes["bootstrap_servers"] = f"127.0.0.1:{broker_port}"
            # The stages start beside Kafka and wait for it.
            changes["kafka_wait_s"] = max(given.kafka_wait_s, KAFKA_START_S)
        return given.replace(**changes), broker_port

    def _arbiter(self, plan: Sequence[Stage], settings: Settings, sockets: Path) -> ChainArbiter:
        env = {**to_env(settings), lifecycle.STOP_WITH_PARENT: "1", "PYTHONUNBUFFERED": "1"}

        def watcher_of(stage: Stage) -> Watcher:
            # One that was taken out and comes back has not died.
            self._spawns.pop(stage.name, None)
            return Watcher.load_from_config(
                {
                    "name": stage.name,
                    "cmd": "/bin/sh",
                    "args": ["-c", INTO_LOG, "sh", str(_log_file(settings, stage)), *stage.command],
                    "copy_env": True,
                    "env": dict(env),
                    "priority": stage.rank,
                    "graceful_timeout": STOP_S,
                    "hooks": {"before_spawn": (self._may_spawn, False)},
                }
            )

        return ChainArbiter(
            plan,
            watcher_of,
            endpoint=f"ipc://{sockets}/control",
            pubsub_endpoint=f"ipc://{sockets}/events",
            check_delay=CHECK_S,
            proc_name="emostream",
        )

    def _may_spawn(self, watcher: Watcher, arbiter: ChainArbiter, hook_name: str, **kwargs: Any) -> bool:
        """Count a start; refuse it, and end the chain, when a stage keeps dying."""
        spawns = self._spawns[watcher.name]
        now_s = time.monotonic()
        spawns.append(now_s)
        while now_s - spawns[0] > DEATHS_WITHIN_S:
            spawns.popleft()
        if len(spawns) > 1:
            log.warning("a stage died and is started again", died=watcher.name, starts=len(spawns))
        if len(spawns) <= DEATHS_MAX:
            return True
        self._fail(
            arbiter,
            EmoStreamError(
                f"stage {watcher.name} died {DEATHS_MAX} times within {DEATHS_WITHIN_S:g} s: "
                f"{_last_line(Path(self._given.run_dir, 'logs', watcher.name + '.log'))}"
            ),
        )
        return False

    def _fail(self, arbiter: ChainArbiter, error: EmoStreamError) -> None:
        if self.failure is None:
            self.failure = error
        self._stop.set()
        arbiter.loop.add_callback(arbiter.stop)

    def _announce(
        self, arbiter: ChainArbiter, settings: Settings, started_s: float, sockets: Path, mark: LockFile
    ) -> None:
        """Print where everything is, once a first window has been through. Runs beside the arbiter's loop."""
        ingest = url_of(settings.host, settings.ingest_port)
        registry = settings.registry_url.rstrip("/") or url_of(settings.host, settings.registry_port)
        bus = KafkaBus(settings.kafka, settings.kafka_wait_s)
        try:
            said = await_first_window(
                bus,
                settings,
                {"ingest": f"{ingest}/healthz", "registry": f"{registry}/healthz"},
                self._stop,
                self._ready_timeout_s,
            )
        except EmoStreamError as error:
            self._fail(arbiter, error)
            return
        finally:
            bus.close()
        if not said:
            return
        metrics = metrics_ports.addresses({"ingest": ingest, "registry": registry, **self._metered}, said)
        line = json.dumps(_endpoints(settings, said, ingest, registry, metrics, sockets, time.monotonic() - started_s))
        mark.say(line)
        if self._ready_file is not None:
            _write_atomically(self._ready_file, line)
        print(line, flush=True)


def _endpoints(
    settings: Settings,
    said: Sequence[Announcement],
    ingest: str,
    registry: str,
    metrics: dict[str, str],
    sockets: Path,
    ready_s: float,
) -> dict[str, Any]:
    return {
        "ingest": ingest,
        "registry": registry,
        "subscribers": [{"cluster": one.cluster, "subscriber": one.subscriber, "url": one.url} for one in said],
        "metrics": metrics,
        "bootstrap_servers": settings.kafka,
        "topic_prefix": settings.topic_prefix,
        "run_dir": settings.run_dir,
        "settings": {name: getattr(settings, name) for name in SAID_SETTINGS},
        "control": f"ipc://{sockets}/control",
        "pid": os.getpid(),
        "ready_s": round(ready_s, 1),
    }


def _log_file(settings: Settings, stage: Stage) -> Path:
    return Path(settings.run_dir, "logs", f"{stage.name}.log")


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"{lines[-1][:500] if lines else 'it said nothing'} (all of it: {path})"


def _write_atomically(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text + "\n")
    scratch.replace(path)
