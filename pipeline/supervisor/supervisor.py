"""Runs a whole chain on one machine: starts every stage, restarts stages that die, and stops them all at the end.

Circus manages the processes; this module decides which there are, in what order they stop, and when they are ready.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circus.watcher import Watcher

from pipeline import jars, java, lifecycle, logs
from pipeline.broker.embedded import READY_TIMEOUT_S
from pipeline.bus.kafka import KafkaBus
from pipeline.errors import EmoStreamError
from pipeline.hosts import base_url, local_url
from pipeline.messages import Announcement
from pipeline.settings import Settings, to_env
from pipeline.socket_folder import socket_folder
from pipeline.supervisor import metrics_ports, preconditions
from pipeline.supervisor.arbiter import ChainArbiter
from pipeline.supervisor.lock_file import LockFile
from pipeline.supervisor.plan import Stage, stages
from pipeline.supervisor.readiness import await_first_window
from pipeline.supervisor.restarts import Restarts, gave_up, is_hopeless

log = logs.get(__name__)

CHECK_S = 0.5
STOP_S = 15.0
# Each stage writes its own log file. With circus's pipes, stages that died at the same moment could not be restarted,
# and a stage would lose its log, or end, when the supervisor dies.
INTO_LOG = 'log=$1; shift; exec "$@" >>"$log" 2>&1'
# The settings that a measurement of this chain depends on.
REPORTED_SETTINGS = (
    *("clusters", "subscribers", "trigger_s", "group_size", "policy", "ingest_workers"),
    *("flush_ms", "flush_phase", "flush_lead_ms", "ack"),
)


class Supervisor:
    """One chain. `run` blocks until the chain has ended; `failure` is the reason if it did not end on request."""

    def __init__(self, settings: Settings, ready_file: Path | None, ready_timeout_s: float) -> None:
        self._given = settings
        self._ready_file = ready_file
        self._ready_timeout_s = ready_timeout_s
        self._stop = threading.Event()
        self._restarts = Restarts()
        self._metrics_urls: dict[str, str] = {}
        self.failure: EmoStreamError | None = None

    def run(self) -> None:
        """Start every stage, wait for the end, stop every stage. Raises EmoStreamError if the chain failed."""
        started_s = time.monotonic()
        preconditions.check(self._given)
        run_dir = Path(self._given.run_dir).resolve()
        (run_dir / "logs").mkdir(exist_ok=True)
        with LockFile(run_dir) as lock_file:
            java.find_java()
            jars.kafka_classpath()
            jars.spark_connector_jars()
            settings, broker_port = self._with_addresses(run_dir)
            folder = socket_folder("control")
            sockets = Path(folder.name)
            try:
                plan = stages(settings, broker_port, str(run_dir / "kafka"))
                plan, self._metrics_urls = metrics_ports.with_ports(plan, self._given)
                arbiter = self._arbiter(plan, settings, sockets)
                ready = threading.Thread(
                    target=self._announce,
                    args=(arbiter, settings, started_s, sockets, lock_file),
                    name="ready",
                    daemon=True,
                )
                arbiter.loop.add_callback(ready.start)
                # The arbiter handles SIGTERM and SIGINT; this thread sends SIGTERM when the parent is dead.
                lifecycle.follow_parent(always=True, grace_s=3 * STOP_S)
                arbiter.start()
            finally:
                self._stop.set()
                folder.cleanup()
                if self._ready_file is not None:
                    self._ready_file.unlink(missing_ok=True)
        if self.failure is not None:
            raise self.failure

    def _with_addresses(self, run_dir: Path) -> tuple[Settings, int | None]:
        given = self._given
        changes: dict[str, object] = {
            "run_dir": str(run_dir),
            # Each stage that needs one gets its own as an argument.
            "metrics_port": 0,
            "ingest_port": lifecycle.claim_port(given.host, given.ingest_port, "ingest_port"),
            "registry_port": lifecycle.claim_port(given.host, given.registry_port, "registry_port"),
        }
        broker_port = None
        if not given.bootstrap_servers:
            broker_port = lifecycle.claim_port("127.0.0.1", 0, "broker port")
            changes["bootstrap_servers"] = f"127.0.0.1:{broker_port}"
            # The stages start at the same time as Kafka and wait for it.
            changes["kafka_wait_s"] = max(given.kafka_wait_s, READY_TIMEOUT_S)
        return given.replace(**changes), broker_port

    def _arbiter(self, plan: Sequence[Stage], settings: Settings, sockets: Path) -> ChainArbiter:
        env = {**to_env(settings), lifecycle.STOP_WITH_PARENT: "1", "PYTHONUNBUFFERED": "1"}

        def watcher_of(stage: Stage) -> Watcher:
            # A stage that was removed by scaling and is added again has not died.
            self._restarts.forget(stage.name)
            return Watcher.load_from_config(
                {
                    "name": stage.name,
                    "cmd": "/bin/sh",
                    "args": ["-c", INTO_LOG, "sh", str(_log_file(settings, stage.name)), *stage.command],
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
        """Count a start; if the stage keeps dying, refuse the start and end the chain."""
        starts = self._restarts.count(watcher.name, time.monotonic())
        if starts > 1:
            log.warning("a stage died and is restarted", died=watcher.name, starts=starts)
        if not is_hopeless(starts):
            return True
        log_file = _log_file(self._given, watcher.name)
        log_text = log_file.read_text(errors="replace") if log_file.exists() else ""
        self._fail(arbiter, gave_up(watcher.name, log_text, str(log_file)))
        return False

    def _fail(self, arbiter: ChainArbiter, error: EmoStreamError) -> None:
        if self.failure is None:
            self.failure = error
        self._stop.set()
        arbiter.loop.add_callback(arbiter.stop)

    def _announce(
        self, arbiter: ChainArbiter, settings: Settings, started_s: float, sockets: Path, lock_file: LockFile
    ) -> None:
        """Print every address once a first window has passed through. Runs in a thread beside the arbiter's loop."""
        ingest = base_url("", settings.host, settings.ingest_port)
        registry = base_url("", settings.host, settings.registry_port)
        # Clients' URLs may lead through a proxy that is not up yet.
        local = {
            "ingest": local_url(settings.host, settings.ingest_port),
            "registry": local_url(settings.host, settings.registry_port),
        }
        bus = KafkaBus(settings.kafka, settings.kafka_wait_s)
        try:
            announcements = await_first_window(
                bus,
                settings,
                {name: f"{url}/healthz" for name, url in local.items()},
                self._stop,
                self._ready_timeout_s,
            )
        except EmoStreamError as error:
            self._fail(arbiter, error)
            return
        finally:
            bus.close()
        if not announcements:
            return
        metrics = metrics_ports.addresses({"ingest": ingest, "registry": registry, **self._metrics_urls}, announcements)
        line = json.dumps(
            _endpoints(settings, announcements, ingest, local, metrics, sockets, time.monotonic() - started_s)
        )
        lock_file.publish(line)
        if self._ready_file is not None:
            _write_atomically(self._ready_file, line)
        print(line, flush=True)


def _endpoints(
    settings: Settings,
    announcements: Sequence[Announcement],
    ingest: str,
    local: dict[str, str],
    metrics: dict[str, str],
    sockets: Path,
    ready_s: float,
) -> dict[str, Any]:
    return {
        "ingest": ingest,
        "registry": base_url(settings.registry_url, settings.host, settings.registry_port),
        "local": local,
        "subscribers": [
            {"cluster": subscriber.cluster, "subscriber": subscriber.subscriber, "url": subscriber.url}
            for subscriber in announcements
        ],
        "metrics": metrics,
        "bootstrap_servers": settings.kafka,
        "topic_prefix": settings.topic_prefix,
        "run_dir": settings.run_dir,
        "settings": {name: getattr(settings, name) for name in REPORTED_SETTINGS},
        "control": f"ipc://{sockets}/control",
        "pid": os.getpid(),
        "ready_s": round(ready_s, 1),
    }


def _log_file(settings: Settings, stage: str) -> Path:
    return Path(settings.run_dir, "logs", f"{stage}.log")


def _write_atomically(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text + "\n")
    scratch.replace(path)
