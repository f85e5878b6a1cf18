"""The scenarios: what is done to a chain while reactions flow through it, and what may follow."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit

import aiohttp
import emoji
import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from experiments.faults import crowd, lost_records, poison, spark_steps
from experiments.faults.flow import Post, Sending, plainly, post
from experiments.faults.ledger import Sent, Told
from experiments.faults.scene import RATE_PER_S, STAGES, WHOLE, HarmedChain, left
from experiments.load import slow
from experiments.load.schedule import POPULAR_EMOJIS, timestamp_of
from experiments.machine import own_disk, own_network
from experiments.machine.planted_clock import PlantedClock
from experiments.repository import ROOT
from experiments.run.chain import settings_of
from experiments.units import NS_PER_S
from pipeline import emojis, lifecycle
from pipeline.bus.connection import client_config
from pipeline.errors import EmoStreamError
from pipeline.jars import default_cache_dir
from pipeline.messages import Event, encode
from pipeline.openapi.kinds import DISK_FULL

Act = Callable[[HarmedChain], Mapping[str, float] | None]
"""What is done to a chain; it may return figures of its own."""
PUBLISHERS = ("main-publisher", "cluster-publisher")
EVERY = ("spark", "ingest", "registry", "main-publisher", "cluster-publisher", "subscriber", "kafka")
# A second one beside the first ends at once, because the port or the folder is taken.
ALONE = ("ingest", "registry", "kafka")
ASYNC = {"ack": "async"}
# Half of the load of some seconds, in one worker.
SMALL_BUFFER = {"ack": "async", "buffer_max": 300, "array_max": 100, "ingest_workers": 1, "kafka_out_s": 60.0}
GROWN_MB = 16.0
# The buffers are full within half of the time.
AWAY = {"ack": "async", "buffer_max": 2_000, "array_max": 100}
# With `async` a worker that is killed loses what it has not flushed: reactions of one flush interval, and of the time
# that the flush takes.
UNFLUSHED_S = 0.5
TEMPORARY_MB = 64


@dataclass(frozen=True)
class Scenario:
    """One scenario: its name, what is done, and what it needs.

    `settings` change those of the chain, which is then one of its own; `alone` asks for that as well. `may_lose` is how
    many reactions answered 202 may be lost. `send` is how a reaction is sent. `apart` asks for a network, or for disks,
    apart from the machine's.
    """

    name: str
    what: str
    act: Act
    settings: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    may_lose: int = 0
    rate_per_s: float = RATE_PER_S
    send: Sending = plainly
    apart: Literal["", "network", "disk"] = ""


def _all(*acts: Act) -> Act:
    def act(scene: HarmedChain) -> None:
        for each in acts:
            each(scene)

    return act


def wait(for_s: float) -> Act:
    """Return what lets the flow go on for a time."""

    def act(_: HarmedChain) -> None:
        time.sleep(for_s)

    return act


def killed(*stages: str) -> Act:
    """Return what kills every process of these stages at once."""

    def act(scene: HarmedChain) -> None:
        scene.kill(*stages)

    return act


def halted(for_s: float, *stages: str) -> Act:
    """Return what stops every process of these stages for a time."""

    def act(scene: HarmedChain) -> None:
        with scene.halted(*stages):
            time.sleep(for_s)

    return act


def worker_killed(scene: HarmedChain) -> None:
    """Kill one of ingest's workers."""
    workers = [each for each in scene.processes("ingest") if each.pid != scene.head("ingest").pid]
    scene.rng.choice(workers).kill()


def worker_hung(scene: HarmedChain) -> None:
    """Stop one of ingest's workers, and wait until another is there in its place."""
    head = scene.head("ingest").pid
    stopped = scene.rng.choice([each for each in scene.processes("ingest") if each.pid != head])
    stopped.suspend()
    scene.until(lambda: not stopped.is_running(), "the worker that hangs has been killed", 120)


@contextmanager
def _second(scene: HarmedChain, stage: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a second process of a stage beside the first, with its environment; yield it and its log."""
    first = scene.head(stage)
    # Granian names its processes anew.
    words = first.cmdline()
    command = words if Path(words[0]).exists() else [sys.executable, "-m", STAGES[stage]]
    env = {**first.environ(), **lifecycle.as_parent()}
    if stage in ALONE:
        # As by hand: the port of a stage that has a supervisor is held by that.
        del env[lifecycle.PARENT_PID]
    log = scene.folder / f"second-{stage}.log"
    with log.open("wb") as output:
        second = subprocess.Popen(
            [*command, *options], env=env, cwd=first.cwd(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield second, log
    finally:
        second.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            second.wait(20)
        second.kill()
        second.wait()


def jvm_hung(scene: HarmedChain) -> None:
    """Stop Spark's JVM alone, whose driver answers all the same, and wait until another is there in its place."""
    (jvm,) = [each for each in scene.processes("spark") if each.name() == "java"]
    jvm.suspend()
    scene.until(lambda: not jvm.is_running(), "the JVM that hangs has been killed", 150)


def registry_hung(scene: HarmedChain) -> None:
    """Stop the registry with its worker, and wait until others are there in their place and answer."""
    stopped = scene.processes("registry")
    for each in stopped:
        each.suspend()
    scene.until(lambda: not any(each.is_running() for each in stopped), "the registry that hangs has been killed", 150)
    scene.until(lambda: scene.health("registry")["status"] == "ok", "the registry answers again")


def doubled(stage: str, for_s: float = 6.0) -> Act:
    """Return what runs a second process of a stage beside the first for a time."""

    def act(scene: HarmedChain) -> None:
        with _second(scene, stage) as (second, _):
            time.sleep(for_s)
            if stage in ALONE:
                scene.until(lambda: second.poll() is not None, f"a second {stage} has ended", 30)
                if not second.returncode:
                    raise EmoStreamError(f"a second {stage} was not refused: it ended with status 0")

    return act


def spark_elsewhere(scene: HarmedChain) -> None:
    """Start a second Spark with a checkpoint of its own, as on another machine: it sees the first, and ends."""
    options = ("--run-dir", str(scene.folder / "elsewhere"), "--metrics-port", "0")
    with _second(scene, "spark", *options) as (_, log):
        scene.until(lambda: "another spark.job" in log.read_text(encoding="utf-8"), "the second job refuses to start")


def everything_killed(scene: HarmedChain) -> None:
    """Kill every process but `up`."""
    for each in scene.processes()[1:]:
        with suppress(Exception):
            each.kill()


def up_killed_at_its_start(scene: HarmedChain) -> None:
    """End the chain; start it three times and kill `up` within its first seconds; and once more, to stay."""
    scene.down()
    folder = scene.folder / "cut"
    for delay_s in (0.4, 1.2, 2.5):
        ports = ("--ingest-port", "0", "--registry-port", "0")
        command = [sys.executable, "-m", "pipeline", "up", "--run-dir", str(folder), *ports]
        with (scene.folder / "cut.log").open("ab") as log:
            started = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        time.sleep(delay_s * scene.rng.uniform(0.8, 1.2))
        started.kill()
        started.wait()
        scene.until(lambda: not left(folder), "every process of a killed `up` has ended", 30)
    scene.up()


# States of the checkpoint against its topic.


def between_runs(change: Callable[[HarmedChain], None]) -> Act:
    """Return what ends the chain, changes what it left, and starts it again."""

    def act(scene: HarmedChain) -> None:
        scene.down()
        change(scene)
        scene.up()

    return act


def checkpoint_deleted(scene: HarmedChain) -> None:
    """Delete Spark's checkpoint."""
    shutil.rmtree(Path(scene.endpoints.run_dir) / "checkpoint")


def checkpoint_older(scene: HarmedChain) -> None:
    """Take the newest three batches out of the checkpoint, as an older copy lacks them."""
    folder = Path(scene.endpoints.run_dir) / "checkpoint"
    for kind in ("offsets", "commits"):
        numbers = sorted(int(path.name) for path in (folder / kind).iterdir() if path.name.isdecimal())
        for number in numbers[-3:]:
            (folder / kind / str(number)).unlink()
            (folder / kind / f".{number}.crc").unlink(missing_ok=True)


def checkpoint_torn(scene: HarmedChain) -> None:
    """Cut the newest file of offsets short."""
    folder = Path(scene.endpoints.run_dir) / "checkpoint" / "offsets"
    newest = max((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    newest.write_text(newest.read_text(encoding="utf-8")[:30], encoding="utf-8")
    (folder / f".{newest.name}.crc").unlink(missing_ok=True)


def kafka_refuses(scene: HarmedChain) -> None:
    """Let Kafka refuse every record of the topic for a time, as one that is too large."""
    admin = AdminClient(client_config(scene.endpoints.bootstrap_servers))
    for most_bytes, for_s in ((1, 4.0), (1 << 20, 6.0)):
        entry = ConfigEntry("max.message.bytes", str(most_bytes), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, scene.names.events.name, incremental_configs=[entry])
        for done in admin.incremental_alter_configs([resource]).values():
            done.result(30)
        time.sleep(for_s)


def buffer_full(scene: HarmedChain) -> Mapping[str, float]:
    """Stop Kafka until more was sent than the buffer holds; look meanwhile that no more waits than it may."""
    with scene.halted("kafka"):
        deadline_s, most = time.monotonic() + 8, 0
        while time.monotonic() < deadline_s:
            with suppress(HTTPError):
                most = max(most, int(scene.health("ingest")["waiting"]))
            time.sleep(0.2)
    limit = int(scene.settings["buffer_max"])
    if not limit * 0.8 <= most <= limit:
        raise EmoStreamError(f"{most} reactions waited, and buffer_max is {limit}")
    return {"waited_most": most}


def spark_killed_without_kafka(scene: HarmedChain) -> None:
    """Kill Kafka between a micro-batch's reading and its window, let the batch go on, and kill Spark; several times.

    Spark's driver is stopped while its JVM reads and counts, so that Kafka is gone when the driver goes on and sends.
    The JVM reads twice, because the reactions have ids; what the driver had done when it was stopped depends on the
    machine: not each time is only the window left to be sent. A Kafka that is only stopped has the window in its
    socket, and takes it when it goes on.
    """
    begun, committed = (partial(spark_steps.batches, scene, kind) for kind in ("offsets", "commits"))
    for _ in range(4):
        # The first micro-batches after a start take seconds.
        for _ in range(6):
            spark_steps.await_growth(begun, 120)
            begun_s = time.monotonic()
            spark_steps.await_growth(committed, 120)
            took_s = time.monotonic() - begun_s
        spark_steps.await_growth(begun, 120)
        time.sleep(took_s * scene.rng.uniform(0.4, 0.9))
        driver = scene.head("spark")
        driver.suspend()
        try:
            time.sleep(2.0)
            scene.kill("kafka")
        finally:
            driver.resume()
        # If it commits without Kafka, which is being started again, that is soon.
        with suppress(EmoStreamError):
            spark_steps.await_growth(committed, 1.5)
        scene.kill("spark")


def kafka_away(for_s: float) -> Act:
    """Return what stops Kafka for a time, in which no process may grow, and ingest says when to come back.

    Every stream stays open, and gets the next windows; the one who comes back when ingest said is accepted once Kafka
    is there again.
    """

    def act(scene: HarmedChain) -> Mapping[str, float]:
        cuts = len(scene.flow.cuts)
        answers: list[_Answer] = []
        with scene.halted("kafka"):
            # Until the buffers are full.
            time.sleep(for_s / 2)
            before, until_s = scene.memory(), time.monotonic() + for_s / 2
            while time.monotonic() < until_s:
                answers.append(_react_once(scene))
                time.sleep(1)
            after = scene.memory()
            received = {name: len(windows) for name, windows in scene.flow.received.items()}
        grown_mb = {name: after[name] - mb for name, mb in before.items() if name in after}
        if grown := [f"{name} by {mb:.0f} MB" for name, mb in grown_mb.items() if mb > GROWN_MB]:
            raise EmoStreamError(f"while Kafka was away there grew {', '.join(grown)}")
        refused = [each for each in answers if each.status == 503 and each.retry_after_s is not None]
        # One worker's buffer may be full before the other's.
        accepted = sum(each.status == 202 for each in answers)
        if answers[-1] not in refused or len(refused) + accepted < len(answers):
            seen = {(each.status, each.retry_after_s) for each in answers}
            raise EmoStreamError(f"while Kafka was away ingest answered, with Retry-After: {seen}")
        retry_after_s = max(each.retry_after_s or 0.0 for each in refused)
        time.sleep(retry_after_s)
        if (answer := _react_once(scene)).status != 202:
            raise EmoStreamError(
                f"{retry_after_s:g} s after Kafka's return, as it said, ingest answers {answer.status}"
            )
        now = scene.flow.received
        scene.until(lambda: all(len(now[name]) > had for name, had in received.items()), "every client has a window")
        if told := scene.flow.cuts[cuts:]:
            raise EmoStreamError(f"while Kafka was away {len(told)} streams did not stay open: {'; '.join(told[:3])}")
        return {
            "grown_most_mb": round(max(grown_mb.values(), default=0.0), 2),
            "refused": len(refused),
            "retry_after_s": retry_after_s,
            "streams_kept": len(received),
        }

    return act


class _Answer(NamedTuple):
    """What ingest answered: the status, the headers by their names in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after_s(self) -> float | None:
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdecimal() else None


def _react_once(scene: HarmedChain) -> _Answer:
    """Send one reaction, once."""
    kind, reaction_id = POPULAR_EMOJIS[0], f"once-{scene.rng.getrandbits(64):x}"
    event = {
        "user_id": "one",
        "emoji_type": kind,
        "timestamp": timestamp_of(time.time_ns()),
        "reaction_id": reaction_id,
    }
    scene.flow.told[reaction_id] = Sent(reaction_id, kind, "unknown")
    place = urlsplit(scene.endpoints.ingest)
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)) as connection:
        connection.request("POST", "/reactions", json.dumps(event), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status == 202:
            scene.flow.told[reaction_id] = Sent(reaction_id, kind, "accepted")
        return _Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read())


def halted_and_killed(for_s: float, *stages: str) -> Act:
    """Return what stops every process of these stages for a time and kills them then: they have fallen behind."""

    def act(scene: HarmedChain) -> None:
        with scene.halted(*stages):
            time.sleep(for_s)
            scene.kill(*stages)

    return act


# What nobody expected: records, requests, connections.


def poisoned(scene: HarmedChain) -> Mapping[str, float]:
    """Write the poison, and wait until the stages have taken it; start the chain again over these topics."""
    written = poison.into(scene)
    for restarts in (True, False):
        poison.until_taken(scene)
        if ended := scene.deaths():
            when = "at the poison" if restarts else "after it, at a new start"
            raise EmoStreamError(f"{ended} processes died {when}")
        if restarts:
            scene.down()
            scene.up()
    return {"poison": written.total()}


def transactions(scene: HarmedChain) -> None:
    """Write into the topic of the reactions in transactions: one committed, one aborted, and one left open."""
    moment_ns = time.time_ns()
    for number, ending in enumerate(("commit", "abort", "open")):
        producer = Producer(
            {
                **client_config(scene.endpoints.bootstrap_servers),
                "transactional.id": f"{scene.rng.random()}",
                "transaction.timeout.ms": 10_000,
            }
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        event = Event("other", "not counted", timestamp_of(moment_ns), moment_ns, moment_ns)
        for _ in range(5):
            producer.produce(scene.names.events.name, encode(event), partition=number % 2)
            producer.produce(scene.names.aggregates.name, b"{}")
        producer.flush(30)
        if ending == "commit":
            producer.commit_transaction(30)
        elif ending == "abort":
            producer.abort_transaction(30)


@contextmanager
def _connections(scene: HarmedChain, stage: str, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    place = urlsplit(getattr(scene.endpoints, stage))
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            each = stack.enter_context(socket.create_connection((place.hostname, place.port), 10))
            each.sendall(first)
            opened.append(each)
        yield opened


@contextmanager
def _limited(
    processes: Sequence[psutil.Process], resource: int, most: Callable[[psutil.Process], int]
) -> Iterator[None]:
    """Bound a resource of each process by `most` meanwhile."""
    before = []
    try:
        for each in processes:
            soft, hard = each.rlimit(resource)
            before.append((each, (soft, hard)))
            each.rlimit(resource, (most(each), hard))
        yield
    finally:
        for each, limits in before:
            with suppress(psutil.Error):
                each.rlimit(resource, limits)


def few_descriptors(scene: HarmedChain) -> None:
    """Leave the stages that listen ten descriptors each for some seconds, and open a hundred connections to each."""
    listening = [each for stage in ("ingest", "registry", "subscriber") for each in scene.processes(stage)]
    with ExitStack() as stack:
        stack.enter_context(_limited(listening, psutil.RLIMIT_NOFILE, lambda each: each.num_fds() + 10))
        for stage in ("ingest", "registry"):
            stack.enter_context(_connections(scene, stage, 100, b""))
        time.sleep(5)


def disk_full(stage: str, for_s: float = 4.0) -> Act:
    """Return what lets every write of a stage to a file fail for a time; what is restarted may write again."""

    def act(scene: HarmedChain) -> None:
        with _limited(scene.processes(stage), psutil.RLIMIT_FSIZE, lambda _: 0):
            time.sleep(for_s)

    return act


def logs_disk_full(scene: HarmedChain) -> None:
    """Let every write to a file fail for some seconds, but those of Kafka and Spark: logs and state of `up`."""
    with_data = {each.pid for stage in ("kafka", "spark") for each in scene.processes(stage)}
    others = [each for each in scene.processes() if each.pid not in with_data]
    log = scene.folder / "up.log"
    with _limited(others, psutil.RLIMIT_FSIZE, lambda _: 0):
        time.sleep(2)
        # What it logs meanwhile: a stage's death and start.
        scene.kill("cluster-publisher")
        time.sleep(4)
        before = log.stat().st_size
    # What `up` started meanwhile has its limit.
    for each in scene.processes():
        with suppress(psutil.Error):
            _, hard = each.rlimit(psutil.RLIMIT_FSIZE)
            each.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
    scene.kill("cluster-publisher")
    scene.until(lambda: log.stat().st_size > before, "`up` writes its log again", 30)


def disk_nearly_full(scene: HarmedChain) -> Mapping[str, float]:
    """Give Kafka's data a disk of their own, and fill it up to half of `disk_free_min_mb` for some seconds."""
    scene.down()
    data, least_mb = Path(scene.endpoints.run_dir) / "kafka", settings_of(scene.endpoints).disk_free_min_mb
    own_disk.move(data, 3 * least_mb)
    scene.up()
    scene.until_flowing()
    refused = 0
    with own_disk.filled(data, leave_mb=least_mb // 2):
        scene.until(lambda: _react_once(scene).status == 503, "ingest refuses reactions", 30)
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            answer = _react_once(scene)
            if answer.status != 503 or answer.retry_after_s is None or DISK_FULL.title.encode() not in answer.body:
                raise EmoStreamError(
                    f"with a disk that is nearly full ingest answered {answer.status}: {answer.body!r}"
                )
            refused += 1
            time.sleep(0.5)
    scene.until(lambda: _react_once(scene).status == 202, "ingest accepts reactions again", 30)
    if ended := scene.deaths():
        raise EmoStreamError(f"{ended} processes died while the disk was nearly full")
    return {"refused": refused}


def temporary_folder_full(scene: HarmedChain) -> None:
    """Give the chain a folder for temporary files on a disk of its own, and fill that; then kill every stage.

    What runs goes on. What was killed may have to wait for room.
    """
    scene.down()
    folder = Path(tempfile.gettempdir())
    path = [Path(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    keep = [scene.folder, ROOT, Path(sys.prefix), Path.home(), default_cache_dir(os.environ), *path]
    own_disk.cover(folder, TEMPORARY_MB, keep)
    scene.up()
    scene.until_flowing()
    with own_disk.filled(folder):
        scene.until_flowing()
        if ended := scene.deaths():
            raise EmoStreamError(f"{ended} processes died while {folder} was full")
        scene.kill(*EVERY)
        time.sleep(10)


def crowd_comes_back(count: int) -> Act:
    """Return what connects a crowd and kills all subscribers: everybody reconnects at once."""

    def act(scene: HarmedChain) -> None:
        registry = scene.endpoints.registry
        scene.flow.do(crowd.comes_back(registry, count, lambda: scene.kill("subscriber")), 400)

    return act


def slow_bodies(scene: HarmedChain) -> None:
    """Hold 500 slow bodies each at ingest and at the registry, and 2,000 connections that say nothing."""
    registry = slow.held(scene.endpoints.registry, silent=0, path="/clients")
    with slow.held(scene.endpoints.ingest), registry:
        for _ in range(6):
            scene.health("ingest")
            scene.health("registry")
            time.sleep(1)


def huge_heads(scene: HarmedChain) -> None:
    """Send requests whose heads have a megabyte, to ingest and the registry."""
    for stage in ("ingest", "registry"):
        with _connections(scene, stage, 20, b"GET /healthz HTTP/1.1\r\n") as opened:
            for each in opened:
                with suppress(OSError):
                    each.sendall(b"X: " + b"x" * 1_000_000)
            scene.health(stage)


def frozen_readers(scene: HarmedChain) -> None:
    """Open ten streams of each transport, read nothing for ten seconds, and leave."""
    with ExitStack() as stack:
        for transport in ("sse", "websocket", "poll"):
            for _ in range(10):
                place = urlsplit(scene.endpoints.registry)
                connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
                stack.callback(connection.close)
                connection.request(
                    "POST", "/clients", json.dumps({"transport": transport}), {"Content-Type": "application/json"}
                )
                answer = json.loads(connection.getresponse().read())
                url = urlsplit(answer["stream_url"].replace("ws:", "http:"))
                stream = stack.enter_context(socket.create_connection((url.hostname, url.port), 10))
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                lines = (f"GET {url.path} HTTP/1.1", f"Host: {url.netloc}", f"Authorization: Bearer {answer['token']}")
                stream.sendall("\r\n".join((*lines, "", "")).encode())
        time.sleep(10)


def every_emoji(scene: HarmedChain) -> None:
    """Send every emoji that there is, in each of five windows."""
    everything = sorted(text for text in emoji.EMOJI_DATA if emojis.counts(text))
    users = [f"all-{number}" for number in range(len(everything) // 40 + 1)]

    async def send() -> None:
        async with aiohttp.ClientSession() as http:
            for turn in range(5):
                for first in range(0, len(everything), 500):
                    await _react(scene, http, everything[first : first + 500], users, f"emoji-{turn}-{first}")

    scene.flow.do(send(), 120)


def backlog(for_s: float, reactions: int) -> Act:
    """Return what stops Spark for a time in which many reactions come: as many as in a longer time."""

    async def send(scene: HarmedChain) -> None:
        users = [f"late-{number}" for number in range(100)]
        kinds = [POPULAR_EMOJIS[number % len(POPULAR_EMOJIS)] for number in range(500)]
        async with aiohttp.ClientSession() as http:
            for turn in range(0, reactions, len(kinds)):
                await _react(scene, http, kinds, users, f"backlog-{turn}")

    def act(scene: HarmedChain) -> Mapping[str, float]:
        until_s = time.monotonic() + for_s
        with scene.halted("spark"):
            scene.flow.do(send(scene), 300)
            time.sleep(max(0.0, until_s - time.monotonic()))
        told = [each.told for each in scene.flow.sent() if each.reaction_id.startswith("backlog-")]
        if (accepted := told.count("accepted")) < 0.9 * reactions:
            raise EmoStreamError(f"of a backlog of {reactions} reactions only {accepted} were accepted")
        return {"backlog": accepted}

    return act


async def _react(
    scene: HarmedChain, http: aiohttp.ClientSession, kinds: Sequence[str], users: Sequence[str], prefix: str
) -> None:
    """Send one array, whose ids begin with `prefix`."""
    now = timestamp_of(time.time_ns())
    reactions = []
    for number, kind in enumerate(kinds):
        reaction_id = f"{prefix}-{number}"
        scene.flow.told[reaction_id] = Sent(reaction_id, kind, "unknown")
        reactions.append(
            {"user_id": users[number % len(users)], "emoji_type": kind, "timestamp": now, "reaction_id": reaction_id}
        )
    told = await post(http, scene.endpoints.ingest, json.dumps(reactions).encode())
    for each in reactions:
        scene.flow.told[each["reaction_id"]] = scene.flow.told[each["reaction_id"]]._replace(told=told)


def cut(rng: random.Random) -> Post:
    """Return what sends a body, and cuts the connection before the answer once in three times."""

    async def send(http: aiohttp.ClientSession, ingest: str, body: bytes) -> Told:
        if rng.random() < 1 / 3:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                timeout = aiohttp.ClientTimeout(total=rng.uniform(0.0005, 0.05))
                async with http.post(
                    f"{ingest}/reactions", data=body, headers={"Content-Type": "application/json"}, timeout=timeout
                ) as answer:
                    await answer.read()
            return "unknown"
        return await post(http, ingest, body)

    return send


def scaled(scene: HarmedChain) -> None:
    """Add a subscriber and a cluster, and take them away, while Spark and a subscriber die."""
    for command in (["--cluster", "1", "--subscribers", "3"], ["--cluster", "3", "--subscribers", "1"]):
        _scale(scene, *command)
    scene.kill("spark")
    _scale(scene, "--cluster", "1", "--subscribers", "2")
    scene.kill("main-publisher")
    _scale(scene, "--cluster", "3", "--subscribers", "0")


def _scale(scene: HarmedChain, *options: str) -> None:
    command = [sys.executable, "-m", "pipeline", "scale", *options, "--run-dir", scene.endpoints.run_dir]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    if done.returncode:
        raise EmoStreamError(f"scale failed: {done.stderr.strip()[-300:]}")


def clock_jumps(by_s: float) -> Act:
    """Return what starts the chain again with a wall clock of its own, which jumps forwards, back, and back again.

    It is the clock of every Python process of the chain. Kafka, the JVM of Spark, the senders and the clients keep the
    true one.
    """

    def act(scene: HarmedChain) -> None:
        scene.down()
        clock = PlantedClock(scene.folder / "clock")
        with clock.for_children():
            scene.up()
        for ahead_s in (by_s, 0.0, -by_s, 0.0):
            scene.until_flowing()
            clock.set(step_ns=round(ahead_s * NS_PER_S))
            time.sleep(4)
            shows_it = partial(_is_ahead, scene, ahead_s, by_s / 2)
            scene.until(shows_it, f"a window was triggered by a clock that is {ahead_s:g} s ahead")

    return act


def _is_ahead(scene: HarmedChain, ahead_s: float, within_s: float) -> bool:
    """Return whether the newest window has its trigger so far ahead of the true time."""
    seen_s = (scene.windows()[-1].trigger_ns - time.time_ns()) / NS_PER_S
    return abs(seen_s - ahead_s) < within_s


def slow_network(scene: HarmedChain) -> Mapping[str, float]:
    """Let all connections share less and less, with a queue of 200 ms, until packets are lost for some seconds."""
    lost = 0
    for mbit_per_s in (16.0, 4.0, 1.0):
        with own_network.slow(mbit_per_s, queue_ms=200):
            time.sleep(5)
            lost = own_network.lost_packets()
    if not lost:
        raise EmoStreamError("the slow network lost no packet: the scenario has shown nothing")
    return {"lost_packets": lost}


def several(count: int) -> Act:
    """Return what kills or stops `count` stages, drawn by chance, one shortly after the other."""

    def act(scene: HarmedChain) -> None:
        for stage in scene.rng.sample(EVERY, count):
            if scene.rng.random() < 0.7:
                scene.kill(stage)
            else:
                halted(scene.rng.uniform(1, 4), stage)(scene)
            time.sleep(scene.rng.uniform(0, 2))

    return act


def burst(scene: HarmedChain) -> None:
    """Send ten times as much for five seconds."""
    before = scene.flow.rate_per_s
    scene.flow.rate_per_s = 10 * before
    time.sleep(5)
    scene.flow.rate_per_s = before


def repeated(act: Act, times: int, pause_s: float) -> Act:
    """Return what does the same several times."""
    return _all(*(_all(act, wait(pause_s)) for _ in range(times)))


SHORT = frozenset(
    {
        *("spark-killed", "kafka-killed", "subscriber-killed", "main-publisher-halted", "worker-killed"),
        *("spark-at-emitted", "everything-killed", "checkpoint-older", "poison", "slow-bodies", "retries"),
    }
)
"""The scenarios of the short profile."""


def catalogue(full: bool = True) -> dict[str, Scenario]:
    """Return the scenarios by name. Without `full` the long ones are shortened."""
    away_s, backlog_s, kills = (120.0, 60.0, 10) if full else (12.0, 10.0, 3)
    # What comes in ten minutes.
    late = round(600 * RATE_PER_S) if full else 2_000
    # Ten thousand reactions in the full profile.
    crowd_size = 5_000 if full else 300
    apart = wait(8 if full else 3)
    deaths = _all(apart, worker_killed, apart, killed("spark"), apart, killed("kafka"), apart)
    unflushed = round(RATE_PER_S * UNFLUSHED_S)
    found = [
        *(Scenario(f"{stage}-killed", f"{stage} is killed", killed(stage)) for stage in EVERY),
        *(Scenario(f"{stage}-halted", f"{stage} is stopped for 6 s", halted(6, stage)) for stage in EVERY),
        *(Scenario(f"{stage}-doubled", f"a second {stage} runs for 6 s", doubled(stage)) for stage in EVERY),
        Scenario("spark-elsewhere", "a second spark starts with a checkpoint of its own", spark_elsewhere),
        *(
            Scenario(f"spark-at-{step.replace(' ', '-')}", f"Spark is killed: {step}", spark_steps.killed_at(step))
            for step in spark_steps.STEPS
        ),
        Scenario("worker-killed", "one of ingest's workers is killed", worker_killed),
        Scenario("worker-hung", "one of ingest's workers stands still", worker_hung, alone=True),
        Scenario("spark-jvm-hung", "Spark's JVM stands still, and its driver does not", jvm_hung, alone=True),
        Scenario("registry-hung", "the registry and its worker stand still", registry_hung, alone=True),
        Scenario("worker-killed-async", "the same with ack=async", worker_killed, ASYNC, may_lose=unflushed),
        Scenario("ingest-killed-async", "all of ingest with ack=async", killed("ingest"), ASYNC, may_lose=unflushed),
        Scenario(
            "kafka-away", f"Kafka is stopped for {away_s:g} s under 500/s", kafka_away(away_s), AWAY, rate_per_s=500.0
        ),
        Scenario("kafka-restarted", f"Kafka is killed {kills} times", repeated(killed("kafka"), kills, 4)),
        Scenario(
            "publishers-killed",
            "all publishers are stopped, then killed, three times",
            repeated(halted_and_killed(3, *PUBLISHERS), 3, 3),
        ),
        Scenario("everything-killed", "every process but `up` is killed", everything_killed),
        Scenario("up-killed", "`up` is killed in its first seconds, three times", up_killed_at_its_start, alone=True),
        Scenario("checkpoint-deleted", "the checkpoint is gone", between_runs(checkpoint_deleted), alone=True),
        Scenario("checkpoint-older", "an older checkpoint is there", between_runs(checkpoint_older), alone=True),
        Scenario("checkpoint-torn", "the newest offsets are cut short", between_runs(checkpoint_torn), alone=True),
        Scenario(
            "log-cut",
            "Kafka removes what is counted, and Spark is killed",
            lost_records.counted_removed,
            alone=True,
        ),
        Scenario("log-cut-ahead", "Kafka removes what is not counted", lost_records.uncounted_removed, alone=True),
        Scenario("segment-cut", "a crash cuts the newest segments short", lost_records.segment_cut, alone=True),
        Scenario(
            "topic-made-again", "emoji-events is deleted and made again", lost_records.topic_made_again, alone=True
        ),
        Scenario(
            "topic-made-again-unseen",
            "emoji-events is made again under a Spark that stands still, and has more records when it goes on",
            lost_records.topic_made_again_unseen,
            alone=True,
        ),
        Scenario("poison", "records that nobody expects, in every topic", poisoned, alone=True),
        Scenario("transactions", "a committed, an aborted and an open transaction", transactions, alone=True),
        Scenario("kafka-refuses", "Kafka refuses records permanently for 4 s", kafka_refuses, alone=True),
        Scenario("buffer-full", "Kafka is stopped until the buffer is full", buffer_full, SMALL_BUFFER),
        Scenario("spark-killed-without-kafka", "Spark is killed while Kafka is away", spark_killed_without_kafka),
        Scenario("slow-bodies", "500 slow bodies at ingest and at the registry, 2,000 silent connections", slow_bodies),
        *(
            Scenario(f"clock-{name}", f"the clock of all but the JVMs jumps by {name}", clock_jumps(by_s), alone=True)
            for name, by_s in (("10s", 10.0), ("2h", 7200.0))
        ),
        Scenario(
            "slow-network",
            "the network is slow, then loses packets",
            slow_network,
            alone=True,
            apart="network",
        ),
        Scenario("suspended", "every process is stopped for 15 s, `up` included", halted(15, WHOLE)),
        Scenario("few-descriptors", "ten free descriptors, a hundred connections", few_descriptors),
        Scenario("kafka-disk-full", "no write of Kafka succeeds for 4 s", disk_full("kafka"), alone=True),
        Scenario("spark-disk-full", "no write of Spark succeeds for 4 s", disk_full("spark"), alone=True),
        Scenario("disk-nearly-full", "less than disk_free_min_mb is free for 4 s", disk_nearly_full, apart="disk"),
        Scenario("tmp-full", "the folder of temporary files is full", temporary_folder_full, apart="disk"),
        Scenario("logs-disk-full", "no write of any other process succeeds for 6 s", logs_disk_full, alone=True),
        Scenario(
            "crowd-comes-back",
            f"{crowd_size:,} clients lose their subscribers at once",
            crowd_comes_back(crowd_size),
            {"registrations_per_address_min": 0},
            rate_per_s=50.0,
        ),
        Scenario("huge-heads", "heads of a megabyte", huge_heads),
        Scenario("frozen-readers", "thirty clients that do not read", frozen_readers),
        Scenario("every-emoji", "every emoji in each of five windows", every_emoji),
        Scenario("retries", "one answer in three is cut off, and all are sent again", wait(8), send=cut),
        Scenario(
            "retries-and-kills",
            "the same, while a worker, Spark and Kafka are killed",
            deaths,
            send=cut,
            rate_per_s=350.0 if full else RATE_PER_S,
        ),
        Scenario("burst", "ten times the load for 5 s", burst),
        Scenario(
            "backlog",
            f"Spark is stopped for {backlog_s:g} s, and {late:,} reactions come",
            backlog(backlog_s, late),
            alone=True,
        ),
        Scenario("scaled", "clusters and subscribers come and go while stages die", scaled, alone=True),
        Scenario("pair", "two stages, drawn by chance", several(2)),
        Scenario("triple", "three stages, drawn by chance", several(3)),
    ]
    return {each.name: each for each in found}
