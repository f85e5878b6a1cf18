"""Runs a whole chain on one machine: starts every stage, restarts stages that die, and stops them all at the end.

Circus manages the processes; this module decides which there are, in what order they stop, and when they are ready.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from tornado.ioloop import PeriodicCallback

from pipeline import jars, java, lifecycle, logs
from pipeline.broker.embedded import LOG_FILE, READY_TIMEOUT_S
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.hosts import base_url, local_url
from pipeline.messages import Announcement
from pipeline.settings import Settings, to_env
from pipeline.socket_folder import socket_folder
from pipeline.supervisor import exits, metrics_ports, preconditions, reports
from pipeline.supervisor.arbiter import STOP_SIGNALS, ChainArbiter, StageWatcher, is_ignored
from pipeline.supervisor.liveness import PROBE_S, Liveness
from pipeline.supervisor.lock_file import LockFile
from pipeline.supervisor.plan import Stage, stages
from pipeline.supervisor.readiness import Readiness
from pipeline.supervisor.reports import Missing
from pipeline.supervisor.restarts import WITHIN_S, Deaths, is_hopeless, pause_s
from pipeline.supervisor.stage_log import StageLog

log = logs.get(__name__)

CHECK_S = 0.5
STOP_S = 15.0
MEMORY_CHECK_S = 5.0
LOG_CHECK_S = 10.0
STDOUT = 1
# The wait for this chain's own Kafka, which may die and start again meanwhile, in pieces.
ATTEMPT_S = 5.0
# Each stage writes its own log file. With circus's pipes, stages that died at the same moment could not be restarted,
# and a stage would lose its log, or end, when the supervisor dies.
INTO_LOG = 'log=$1; shift; exec "$@" >>"$log" 2>&1'
# The settings that a measurement of this chain depends on.
REPORTED_SETTINGS = (
    *("clusters", "subscribers", "trigger_s", "group_size", "policy", "ingest_workers", "top_n"),
    *("flush_ms", "flush_phase", "flush_lead_ms", "ack"),
)


class Supervisor:
    """One chain. `run` blocks until the chain has ended; `failure` is the reason if it did not end on request."""

    def __init__(self, settings: Settings, ready_file: Path | None, ready_timeout_s: float) -> None:
        self._given = settings
        self._ready_file = ready_file
        self._ready_timeout_s = ready_timeout_s
        self._deaths = Deaths()
        self._was_ready = False
        # When a stage that died is started again, on the monotonic clock.
        self._due_s: dict[str, float] = {}
        self._memory = exits.OutOfMemory()
        self._logs: dict[str, StageLog] = {}
        self._readiness: Readiness | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        """Start every stage, wait for the end, stop every stage.

        Raises EmoStreamError if the chain failed, KeyboardInterrupt if a signal comes before the first stage starts.
        """
        started_s = time.monotonic()
        for number in STOP_SIGNALS:
            if not is_ignored(number):
                signal.signal(number, signal.default_int_handler)
        if self._given.bootstrap_servers:
            log.info("looking for Kafka", address=self._given.kafka)
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
                plan, metrics_urls = metrics_ports.with_ports(plan, self._given)
                urls = {
                    "ingest": base_url("", settings.host, settings.ingest_port),
                    "registry": base_url(settings.registry_url, settings.host, settings.registry_port),
                    **metrics_urls,
                }
                arbiter = self._arbiter(plan, settings, sockets)
                bus = KafkaBus(settings.kafka, settings.kafka_wait_s if broker_port is None else ATTEMPT_S)
                feed_bus = (
                    KafkaBus(settings.feed_kafka, settings.kafka_wait_s, setting=settings.feed_setting)
                    if settings.feed_bootstrap_servers
                    else bus
                )
                self._readiness = Readiness(
                    settings, plan, _local_urls(settings, metrics_urls), bus, feed_bus, started_s
                )

                def publish(announcements: Sequence[Announcement]) -> None:
                    ready_s = time.monotonic() - started_s
                    self._publish(_endpoints(settings, announcements, urls, sockets, ready_s), lock_file)

                ready = threading.Thread(
                    target=self._follow,
                    args=(self._readiness, arbiter, KafkaProbe(settings).answers, publish),
                    name="ready",
                    daemon=True,
                )
                arbiter.loop.add_callback(ready.start)
                PeriodicCallback(self._check_memory, MEMORY_CHECK_S * 1000).start()
                PeriodicCallback(self._trim_logs, LOG_CHECK_S * 1000).start()
                # The arbiter handles signals; this thread sends SIGTERM when the parent is dead.
                lifecycle.follow_parent(always=True, grace_s=3 * STOP_S)
                arbiter.start()
            finally:
                folder.cleanup()
                if self._ready_file is not None:
                    self._ready_file.unlink(missing_ok=True)
        log.info("stopped")
        if self.failure is not None:
            raise self.failure

    def _with_addresses(self, run_dir: Path) -> tuple[Settings, int | None]:
        given = self._given
        changes: dict[str, object] = {
            "run_dir": str(run_dir),
            # Each stage that needs one gets its own as an argument.
            "metrics_port": 0,
            "ingest_port": lifecycle.hold_port(given.host, given.ingest_port, "ingest_port"),
            "registry_port": lifecycle.hold_port(given.host, given.registry_port, "registry_port"),
        }
        broker_port = None
        if not given.bootstrap_servers:
            broker_port = lifecycle.claim_port("127.0.0.1", 0, "broker port")
            changes["bootstrap_servers"] = f"127.0.0.1:{broker_port}"
            # The stages start at the same time as Kafka and wait for it.
            changes["kafka_wait_s"] = max(given.kafka_wait_s, READY_TIMEOUT_S)
        return given.replace(**changes), broker_port

    def _arbiter(self, plan: Sequence[Stage], settings: Settings, sockets: Path) -> ChainArbiter:
        env = {**to_env(settings), **lifecycle.as_parent(), "PYTHONUNBUFFERED": "1"}

        def watcher_of(stage: Stage) -> StageWatcher:
            log_file = Path(settings.run_dir, "logs", f"{stage.name}.log")
            # Kafka's JVM has a log of its own.
            others = [Path(settings.run_dir, "kafka", LOG_FILE)] if stage.module == "pipeline.broker" else []
            self._logs[stage.name] = StageLog(log_file, *others)
            if self._readiness is not None:
                # A stage that was removed by scaling and is added again has not died.
                self._deaths.forget(stage.name)
                self._due_s.pop(stage.name, None)
                (stage,), urls = metrics_ports.with_ports([stage], settings)
                self._readiness.add(stage, _local_urls(settings, urls))
            watcher: StageWatcher = StageWatcher.load_from_config(
                {
                    "name": stage.name,
                    "cmd": "/bin/sh",
                    "args": ["-c", INTO_LOG, "sh", str(log_file), *stage.command],
                    "copy_env": True,
                    "env": dict(env),
                    "priority": stage.rank,
                    "graceful_timeout": STOP_S,
                    "hooks": {
                        "after_reap": (self._reaped, False),
                        "before_signal": (self._signalled, False),
                        "after_stop": (self._stopped, False),
                    },
                }
            )
            watcher.may_start = partial(self._may_start, stage.name)
            watcher.waits = partial(self._waits, stage.name)
            return watcher

        return ChainArbiter(
            plan,
            watcher_of,
            endpoint=f"ipc://{sockets}/control",
            pubsub_endpoint=f"ipc://{sockets}/events",
            check_delay=CHECK_S,
            proc_name="emostream",
        )

    def _check_memory(self) -> None:
        self._memory.sample()

    def _trim_logs(self) -> None:
        for each in self._logs.values():
            each.trim()

    def _may_start(self, name: str) -> bool:
        """Refuse to start a stage that keeps dying in a chain that was never ready."""
        return self._was_ready or not is_hopeless(self._deaths.recent(name, time.monotonic()))

    def _waits(self, name: str) -> bool:
        if time.monotonic() < self._due_s.get(name, 0.0):
            return True
        self._logs[name].begin()
        return False

    def _reaped(self, watcher: StageWatcher, arbiter: ChainArbiter, exit_code: int, **_: Any) -> bool:
        """Report a death, and say when the stage starts again; a chain that was never ready ends if it keeps dying.

        Circus calls this for every process that ended.
        """
        stage = next((stage for stage in arbiter.plan if stage.name == watcher.name), None)
        if stage is None or self._readiness is None or watcher.is_stopping() or watcher.is_stopped():
            return True
        now_s = time.monotonic()
        deaths = self._deaths.count(stage.name, now_s)
        hopeless = not self._was_ready and is_hopeless(deaths)
        again_s = pause_s(self._deaths.in_a_row(stage.name)) if self._was_ready else 0.0
        self._due_s[stage.name] = now_s + again_s
        log.warning(
            "died",
            name=stage.name,
            exit=exits.exit_name(exit_code),
            out_of_memory=self._memory.sample(),
            deaths=deaths,
            within_s=WITHIN_S,
            restarted=not hopeless,
            again_s=round(again_s, 1),
            error=self._logs[stage.name].last_error(),
            log=str(self._logs[stage.name].path),
        )
        self._readiness.died(stage)
        if hopeless:
            dead, *others = self._missing(stage.name, *(each for each in self._logs if each != stage.name))
            self._fail(arbiter, reports.gave_up(dead, others))
        return True

    def _signalled(self, watcher: StageWatcher, signum: int, **_: Any) -> bool:
        """Report a stage that is killed because it did not end. Circus calls this before it sends a signal."""
        if signum == signal.SIGKILL:
            log.warning("killed", name=watcher.name, after_s=STOP_S)
        return True

    def _stopped(self, watcher: StageWatcher, arbiter: ChainArbiter, **_: Any) -> bool:
        """Report a stage that scaling removed. Circus calls this for every stage that it has stopped."""
        if self._readiness is not None and all(stage.name != watcher.name for stage in arbiter.plan):
            self._readiness.remove(watcher.name)
            log.info("removed", name=watcher.name)
        return True

    def _fail(self, arbiter: ChainArbiter, error: Exception) -> None:
        """End the chain with an error, unless it ends already."""
        if not arbiter.stopping.is_set():
            self.failure = self.failure or error
            arbiter.loop.add_callback(arbiter.stop, "the chain failed")

    def _follow(
        self,
        readiness: Readiness,
        arbiter: ChainArbiter,
        kafka_answers: Callable[[], bool],
        publish: Callable[[Sequence[Announcement]], None],
    ) -> None:
        """Publish every address once all stages are ready. Runs in a thread beside the arbiter's loop."""
        try:
            announcements = readiness.await_first_window(arbiter.stopping, self._ready_timeout_s)
            if announcements is None:
                raise reports.not_ready(self._missing(*readiness.lacking()), self._ready_timeout_s)
            publish(announcements)
            replace = partial(arbiter.loop.add_callback, self._kill, arbiter)
            liveness = Liveness(readiness.urls, replace, kafka_answers, readiness.has_own_kafka)
            threading.Thread(target=liveness.watch, args=(arbiter.stopping,), name="liveness", daemon=True).start()
            readiness.watch(arbiter.stopping)
        except Exception as error:
            # A mistake in this program ends the chain as well, with a traceback.
            self._fail(arbiter, error)

    def _kill(self, arbiter: ChainArbiter, name: str) -> None:
        """Kill the processes of a stage that hangs; it is reaped, reported and started again like any that dies.

        Its workers too: one that hangs as well would not see its main process die, and keep the port.
        """
        if any(stage.name == name for stage in arbiter.plan):
            for process in list(arbiter.get_watcher(name).processes.values()):
                with suppress(psutil.NoSuchProcess):
                    main = psutil.Process(process.pid)
                    for each in (main, *main.children(recursive=True)):
                        with suppress(psutil.NoSuchProcess):
                            each.kill()

    def _missing(self, *names: str) -> list[Missing]:
        lacking = self._readiness.lacking() if self._readiness is not None else {}
        now_s = time.monotonic()
        return [
            Missing(
                name,
                *lacking.get(name, ("is ready", "")),
                self._deaths.recent(name, now_s),
                self._logs[name].last_error(),
                self._logs[name].last_complaint(),
                str(self._logs[name].path),
            )
            for name in names
        ]

    def _publish(self, endpoints: dict[str, Any], lock_file: LockFile) -> None:
        """Write the addresses into the lock file and the ready file, and print them."""
        self._was_ready = True
        line = json.dumps(endpoints)
        lock_file.publish(line)
        log.info("all stages are ready", after_s=endpoints["ready_s"])
        try:
            print(line, flush=True)
        except OSError as error:
            raise EmoStreamError(
                f"the addresses could not be printed ({error.strerror}): keep standard output open until `up` ends"
            ) from error
        if os.isatty(STDOUT):
            print(reports.for_people(endpoints["registry"]), file=sys.stderr, flush=True)
        # Last: a program that waits for this file may then close what it reads.
        if self._ready_file is not None:
            _write_atomically(self._ready_file, line)


class KafkaProbe:
    """Whether the Kafka of a chain answers; for one thread."""

    def __init__(self, settings: Settings) -> None:
        self._bus = KafkaBus(settings.kafka, PROBE_S)
        self._topic = topics(settings).aggregates.name

    def answers(self) -> bool:
        """Return whether it says where a topic ends, within some seconds."""
        try:
            self._bus.ends(self._topic)
        except Exception as error:
            # Whatever it is, it is no answer: nobody may be killed because of it.
            log.debug("Kafka does not answer", error=str(error))
            self._bus.close()
            return False
        return True


def _local_urls(settings: Settings, metrics_urls: Mapping[str, str]) -> dict[str, str]:
    """Return the URLs at which this machine reaches the stages with a server, whatever is in front of it."""
    ports = {name: urlsplit(url).port or 0 for name, url in metrics_urls.items()}
    ports |= {"ingest": settings.ingest_port, "registry": settings.registry_port}
    return {name: local_url(settings.host, port) for name, port in ports.items()}


def _endpoints(
    settings: Settings, announcements: Sequence[Announcement], urls: Mapping[str, str], sockets: Path, ready_s: float
) -> dict[str, Any]:
    return {
        "ingest": urls["ingest"],
        "registry": urls["registry"],
        # For commands on this machine: the registry's URL may lead through a proxy that is not up yet.
        "local": {"registry": local_url(settings.host, settings.registry_port)},
        "subscribers": [
            {"cluster": subscriber.cluster, "subscriber": subscriber.subscriber, "url": subscriber.url}
            for subscriber in announcements
        ],
        "metrics": metrics_ports.addresses(urls, announcements),
        "bootstrap_servers": settings.kafka,
        "kafka_security_file": settings.kafka_security_file,
        "topic_prefix": settings.topic_prefix,
        "run_dir": settings.run_dir,
        "settings": {name: getattr(settings, name) for name in REPORTED_SETTINGS},
        "control": f"ipc://{sockets}/control",
        "pid": os.getpid(),
        "ready_s": round(ready_s, 1),
    }


def _write_atomically(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text + "\n", encoding="utf-8")
    scratch.replace(path)
