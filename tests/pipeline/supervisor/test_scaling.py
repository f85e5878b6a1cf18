"""Scaling a running chain: the supervisor over processes that only sleep, and `scale` over a fake chain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
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
from tests.harness.waiting import until

# Every stage is a shell that logs its start (+) and its end (-), and takes 0.3 s to end.
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


class Supervised:
    """A supervisor in a separate process, over stages that only sleep."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.control = f"ipc://{folder}/control"
        self._log = log
        command = [sys.executable, "-c", SUPERVISOR, self.control, f"ipc://{folder}/events", str(log)]
        self.process = subprocess.Popen(command, env=os.environ)

    def ask(self, command: str, **properties: object) -> dict[str, Any]:
        """Send one of circus's commands."""
        client = CircusClient(endpoint=self.control, timeout=240)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
            return answer
        finally:
            client.stop()

    def logged(self) -> list[str]:
        """Return the starts (+) and ends (-) of stages, in order."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@contextmanager
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """Yield a supervisor of cluster 1 with two subscribers, all of them started."""
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="emostream-") as folder:
        running = Supervised(Path(folder), tmp_path / "log")
        try:
            until(lambda: len(running.logged()) == 3, "all three stages have started")
            yield running
        finally:
            running.process.terminate()
            running.process.wait(30)


def test_supervisor_adds_and_removes_stages(tmp_path: Path) -> None:
    """A cluster's subscribers stop before its publisher; all stages end with the supervisor."""
    with supervised(tmp_path) as running:
        answer = scaling._ask(running.control, "1", 3, 30)
        assert (answer["started"], answer["stopped"]) == (["subscriber-1-3"], [])
        answer = scaling._ask(running.control, "north", 1, 30)
        assert answer["started"] == ["cluster-publisher-north", "subscriber-north-1"]
        until(lambda: len(running.logged()) == 6, "all six starts and ends are logged")
        answer = scaling._ask(running.control, "1", 0, 30)
        assert answer["stopped"] == ["subscriber-1-3", "subscriber-1-2", "subscriber-1-1", "cluster-publisher-1"]
        gone = [line for line in running.logged() if line.startswith("-")]
        assert gone[-1] == "- cluster-publisher-1"
        assert set(gone[:-1]) == {"- subscriber-1-3", "- subscriber-1-2", "- subscriber-1-1"}
        statuses = running.ask("status")["statuses"]
        assert statuses == {"cluster-publisher-north": "active", "subscriber-north-1": "active"}
        assert scaling._ask(running.control, "1", 0, 30)["stopped"] == []
    assert set(running.logged()[-2:]) == {"- cluster-publisher-north", "- subscriber-north-1"}


def test_stage_that_dies_during_scaling_is_restarted(tmp_path: Path) -> None:
    """A stage that stops slowly does not delay restarts; a second request during scaling is refused for the moment."""
    with supervised(tmp_path) as running:
        (pid,) = running.ask("list", name="cluster-publisher-1")["pids"]
        refusals = []

        def insist(cluster: str) -> None:
            """Repeat the request until it is accepted."""
            while True:
                try:
                    scaling._ask(running.control, cluster, 1, 30)
                    return
                except EmoStreamError as error:
                    refusals.append(str(error))

        asked = threading.Thread(target=insist, args=("1",))
        asked.start()
        os.kill(pid, 9)
        insist("2")
        asked.join()
        assert all("try again later" in refusal for refusal in refusals)
        until(lambda: running.logged().count("+ cluster-publisher-1") == 2, "the cluster publisher has been restarted")


def test_cluster_name_that_differs_in_letter_case_is_refused(tmp_path: Path) -> None:
    """Circus ignores letter case; nothing is started."""
    with supervised(tmp_path) as running:
        scaling._ask(running.control, "north", 1, 30)
        with pytest.raises(EmoStreamError, match="cluster 'North' differs only in letter case from a running one"):
            scaling._ask(running.control, "North", 1, 30)
        assert len(running.ask("status")["statuses"]) == 5


def test_unreachable_supervisor_is_named_with_timeout(tmp_path: Path) -> None:
    """The error has its address and the timeout."""
    with pytest.raises(EmoStreamError, match=r"did not answer at ipc://.* within 0\.1 s"):
        scaling._ask(f"ipc://{tmp_path}/nobody", "1", 1, 0.1)


class Chain:
    """A fake chain as `scale` sees it: lock file, registry, bus and supervisor."""

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
                """List the live subscribers of cluster 1."""
                members = [{"subscriber": name, "live": True} for name in sorted(chain.live)]
                body = json.dumps({"clusters": [{"cluster": "1", "subscribers": members}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        def ask(control: str, cluster: str, subscribers: int, timeout_s: float) -> dict[str, Any]:
            assert control == "ipc://control"
            self.asked.append((cluster, subscribers))
            return self.answer

        monkeypatch.setattr(scaling, "_ask", ask)
        monkeypatch.setattr(scaling, "KafkaBus", lambda servers, wait_s: self.bus)
        self.server = HTTPServer(("127.0.0.1", 0), Registry)
        self.addresses = {
            "control": "ipc://control",
            # What clients call may lead through a proxy that is not up.
            "registry": "https://registry.example.invalid",
            "local": {"registry": f"http://127.0.0.1:{self.server.server_port}"},
            "bootstrap_servers": "kafka:9092",
            "kafka_security_file": "",
            "topic_prefix": "p-",
            "run_dir": str(run_dir),
        }


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chain]:
    """Yield a chain that runs in tmp_path."""
    fake = Chain(tmp_path, monkeypatch)
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with LockFile(tmp_path) as lock_file:
            lock_file.publish(json.dumps(fake.addresses))
            yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


def test_scale_returns_when_registry_lists_new_subscribers_as_live(chain: Chain, tmp_path: Path) -> None:
    """The result names the stages started and stopped."""
    chain.answer = {"started": ["subscriber-1-2"], "stopped": []}
    done: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: done.append(scaling.scale(tmp_path, "1", 2, 30)))
    thread.start()
    until(lambda: chain.asked == [("1", 2)], "the supervisor was asked")
    assert done == []
    chain.live.add("2")
    thread.join(30)
    assert done == [{"cluster": "1", "subscribers": 2, "started": ["subscriber-1-2"], "stopped": []}]


def test_removed_subscriber_and_route_get_tombstones(chain: Chain, tmp_path: Path) -> None:
    """A killed subscriber cannot withdraw its announcement; a cluster without subscribers loses its route."""
    names = chain.names
    join(chain.bus, names, ["1", "2"])
    announcement = Announcement("1", "1", "http://x", 0, 1 * S)
    chain.bus.writer().send(names.subscribers.name, encode(announcement), b"1/1")
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
def test_timeout_names_the_difference_and_the_logs(
    chain: Chain, tmp_path: Path, live: set[str], stopped: list[str], missing: str
) -> None:
    """A new subscriber is not live, or a removed one is still listed."""
    chain.live = live
    chain.answer = {"started": [], "stopped": stopped}
    with pytest.raises(EmoStreamError, match=f"{missing}: see the logs in {tmp_path}/logs"):
        scaling.scale(tmp_path, "1", 2, 0.1)


def test_unreachable_registry_is_named(chain: Chain, tmp_path: Path) -> None:
    """The error has the registry's address."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with LockFile(elsewhere) as lock_file:
        lock_file.publish(json.dumps({**chain.addresses, "local": {"registry": "http://127.0.0.1:1"}}))
        with pytest.raises(EmoStreamError, match=r"the registry at http://127\.0\.0\.1:1 does not answer"):
            scaling.scale(elsewhere, "1", 2, 0.1)
