"""Scaling a chain that runs: the supervisor's side with processes that only sleep, and what is asked of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from circus.client import CircusClient

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.cluster_routes import join, read
from pipeline.errors import EmoStreamError
from pipeline.messages import Announcement, encode
from pipeline.settings import Settings
from pipeline.supervisor import scaling
from pipeline.supervisor.lock_file import LockFile

# Every stage is a shell that writes down its coming and going; one refuses to leave at once.
SUPERVISOR = """
import sys
from circus.watcher import Watcher
from pipeline.settings import Settings
from pipeline.supervisor.arbiter import ChainArbiter
from pipeline.supervisor.plan import stages

control, events, log = sys.argv[1:]
STAY = 'trap "sleep 0.3; echo - $0 >> $1; exit" TERM; echo + $0 >> $1; while :; do sleep 0.1; done'

def watcher_of(stage):
    return Watcher.load_from_config({
        "name": stage.name, "cmd": "/bin/sh", "args": ["-c", STAY, stage.name, log], "priority": stage.rank,
        "copy_env": True, "graceful_timeout": 10.0,
    })

plan = [stage for stage in stages(Settings(clusters=1, subscribers=2), None, "") if "--cluster" in stage.arguments]
ChainArbiter(plan, watcher_of, endpoint=control, pubsub_endpoint=events, check_delay=0.2).start()
"""
S = 1_000_000_000


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what another process is about to do."""
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited 30 s in vain"
        time.sleep(0.02)
    return found


class Supervised:
    """A supervisor in a process of its own, over stages that only sleep."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.control = f"ipc://{folder}/control"
        self._log = log
        command = [sys.executable, "-c", SUPERVISOR, self.control, f"ipc://{folder}/events", str(log)]
        self.process = subprocess.Popen(command, env=os.environ)

    def ask(self, command: str, **properties: object) -> dict[str, Any]:
        """Send one of circus's commands."""
        client = CircusClient(endpoint=self.control, timeout=30.0)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
            return answer
        finally:
            client.stop()

    def said(self) -> list[str]:
        """Who came (+) and went (-), in order."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@contextmanager
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """A supervisor that keeps cluster 1 with two subscribers, all of them started."""
    # An address of a socket is short.
    with tempfile.TemporaryDirectory(prefix="emostream-") as folder:
        one = Supervised(Path(folder), tmp_path / "log")
        try:
            until(lambda: len(one.said()) == 3)
            yield one
        finally:
            one.process.terminate()
            one.process.wait(30)


def test_a_supervisor_takes_stages_in_and_out(tmp_path: Path) -> None:
    """What is asked for is what runs; a cluster's subscribers go before its publisher, and all end with the chain."""
    with supervised(tmp_path) as one:
        answer = scaling._ask(one.control, "1", 3, 30)
        assert (answer["started"], answer["stopped"]) == (["subscriber-1-3"], [])
        answer = scaling._ask(one.control, "north", 1, 30)
        assert answer["started"] == ["cluster-publisher-north", "subscriber-north-1"]
        until(lambda: len(one.said()) == 6)
        answer = scaling._ask(one.control, "1", 0, 30)
        assert answer["stopped"] == ["subscriber-1-3", "subscriber-1-2", "subscriber-1-1", "cluster-publisher-1"]
        gone = [line for line in one.said() if line.startswith("-")]
        assert gone[-1] == "- cluster-publisher-1"
        assert set(gone[:-1]) == {"- subscriber-1-3", "- subscriber-1-2", "- subscriber-1-1"}
        statuses = one.ask("status")["statuses"]
        assert statuses == {"cluster-publisher-north": "active", "subscriber-north-1": "active"}
        assert scaling._ask(one.control, "1", 0, 30)["stopped"] == []
    assert set(one.said()[-2:]) == {"- cluster-publisher-north", "- subscriber-north-1"}


def test_a_stage_that_dies_meanwhile_is_started_again(tmp_path: Path) -> None:
    """One that takes its time to leave keeps nobody from being looked after, and a second wish waits its turn."""
    with supervised(tmp_path) as one:
        (pid,) = one.ask("list", name="cluster-publisher-1")["pids"]
        refusals = []

        def insist(cluster: str) -> None:
            """Ask until it is done: either of the two may come first."""
            while True:
                try:
                    scaling._ask(one.control, cluster, 1, 30)
                    return
                except EmoStreamError as error:
                    refusals.append(str(error))

        asked = threading.Thread(target=insist, args=("1",))
        asked.start()
        os.kill(pid, 9)
        insist("2")
        asked.join()
        assert all("try again when that is over" in refusal for refusal in refusals)
        until(lambda: one.said().count("+ cluster-publisher-1") == 2)


def test_names_that_circus_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    """It forgets the case of letters; nothing is started."""
    with supervised(tmp_path) as one:
        scaling._ask(one.control, "north", 1, 30)
        with pytest.raises(EmoStreamError, match="cluster 'North' is too like one that is there"):
            scaling._ask(one.control, "North", 1, 30)
        assert len(one.ask("status")["statuses"]) == 5


def test_a_supervisor_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """With how long it was waited for."""
    with pytest.raises(EmoStreamError, match=r"did not answer at ipc://.* within 0\.1 s"):
        scaling._ask(f"ipc://{tmp_path}/nobody", "1", 1, 0.1)


class Chain:
    """What `scale` sees of a chain: a mark, a registry's answer, a bus, and a supervisor that does as it is told."""

    def __init__(self, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bus = MemoryBus()
        self.names = topics(Settings(topic_prefix="p-"))
        self.bus.ensure(self.names.aggregates, self.names.clusters, self.names.subscribers)
        self.asked: list[tuple[str, int]] = []
        self.answer: dict[str, Any] = {"started": [], "stopped": []}
        self.live = {"1"}
        chain = self

        class Registry(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Say who is live in cluster 1."""
                members = [{"subscriber": name, "live": True} for name in sorted(chain.live)]
                body = json.dumps({"clusters": [{"cluster": "1", "subscribers": members}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        def ask(control: str, cluster: str, subscribers: int, timeout_s: float) -> dict[str, Any]:
            assert control == "ipc://control"
            self.asked.append((cluster, subscribers))
            return self.answer

        monkeypatch.setattr(scaling, "_ask", ask)
        monkeypatch.setattr(scaling, "KafkaBus", lambda servers, wait_s: self.bus)
        self.server = HTTPServer(("127.0.0.1", 0), Registry)
        self.said = {
            "control": "ipc://control",
            "registry": f"http://127.0.0.1:{self.server.server_port}",
            "bootstrap_servers": "kafka:9092",
            "topic_prefix": "p-",
            "run_dir": str(run_dir),
        }


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chain]:
    """A chain that runs in tmp_path."""
    one = Chain(tmp_path, monkeypatch)
    thread = threading.Thread(target=one.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with LockFile(tmp_path) as mark:
            mark.say(json.dumps(one.said))
            yield one
    finally:
        one.server.shutdown()
        one.server.server_close()
        thread.join()


def test_scaling_returns_when_the_registry_sees_it(chain: Chain, tmp_path: Path) -> None:
    """Not before those that came are live; what was done is what is returned."""
    chain.answer = {"started": ["subscriber-1-2"], "stopped": []}
    done: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: done.append(scaling.scale(tmp_path, "1", 2, 30)))
    thread.start()
    until(lambda: chain.asked == [("1", 2)])
    assert done == []
    chain.live.add("2")
    thread.join(30)
    assert done == [{"cluster": "1", "subscribers": 2, "started": ["subscriber-1-2"], "stopped": []}]


def test_who_was_stopped_is_taken_out_for_certain(chain: Chain, tmp_path: Path) -> None:
    """A subscriber that had to be killed cannot say so; a cluster without subscribers is routed to no more."""
    names = chain.names
    join(chain.bus, names, ["1", "2"])
    said = Announcement("1", "1", "http://x", 0, 1 * S)
    chain.bus.writer().send(names.subscribers.name, encode(said), b"1/1")
    chain.answer = {"started": [], "stopped": ["subscriber-1-1", "cluster-publisher-1"]}
    chain.live.clear()
    scaling.scale(tmp_path, "1", 0, 30)
    last = chain.bus.tail(names.subscribers.name, 1)[0]
    assert (last.key, last.value) == (b"1/1", None)
    assert read(chain.bus.tail(names.clusters.name, 9))["1"] is None
    assert read(chain.bus.tail(names.clusters.name, 9))["2"] is not None


@pytest.mark.parametrize(
    ("live", "stopped", "missing"),
    [({"1"}, [], "subscriber 2 is not live"), ({"1", "2", "3"}, ["subscriber-1-3"], "subscriber 3 is still listed")],
)
def test_what_does_not_come_about_is_named(
    chain: Chain, tmp_path: Path, live: set[str], stopped: list[str], missing: str
) -> None:
    """With where to look."""
    chain.live = live
    chain.answer = {"started": [], "stopped": stopped}
    with pytest.raises(EmoStreamError, match=f"{missing}; see the logs in {tmp_path}/logs"):
        scaling.scale(tmp_path, "1", 2, 0.1)


def test_a_registry_that_is_away_is_named(chain: Chain, tmp_path: Path) -> None:
    """Rather than waited for in silence."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with LockFile(elsewhere) as mark:
        mark.say(json.dumps({**chain.said, "registry": "http://127.0.0.1:1"}))
        with pytest.raises(EmoStreamError, match=r"the registry at http://127\.0\.0\.1:1 does not answer"):
            scaling.scale(elsewhere, "1", 2, 0.1)
