"""Ingest as a process over a real Kafka: its answers under load, what it keeps when it ends, refusals to start."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.bench.hammer import Outcome, hammer
from experiments.load.http1 import post
from experiments.load.schedule import timestamp_of
from pipeline import lifecycle
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.messages import Event, decode_event
from pipeline.settings import Settings, to_env
from tests.harness.builders import reaction
from tests.harness.http import is_healthy, post_status
from tests.harness.processes import kill_family, module, run_to_end, running, taken_port
from tests.harness.waiting import DEADLINE_S, until

pytestmark = pytest.mark.integration

CONNECTIONS = 50


class Ingest:
    """An ingest that runs, its settings, and what reached Kafka through it."""

    def __init__(self, process: subprocess.Popen[bytes], settings: Settings, log: Path) -> None:
        self.process = process
        self.settings = settings
        self.log = log
        self.url = f"http://127.0.0.1:{settings.ingest_port}"

    def hammer(self, requests: Any, **options: Any) -> Outcome:
        """Send `requests` over 50 connections, each waiting for its answer; end when the connections do."""
        # The time is only for a server that goes on and on.
        sending = hammer("127.0.0.1", self.settings.ingest_port, requests, CONNECTIONS, DEADLINE_S, **options)
        return asyncio.run(sending)

    def hammer_and(self, enough: int, then: Callable[[], object]) -> Outcome:
        """Hammer ingest, do `then` while `enough` requests and more are under way; return what was answered."""
        requests = Requests(enough)
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(self.hammer(requests)))
        thread.start()
        assert requests.reached.wait(DEADLINE_S)
        then()
        thread.join(2 * DEADLINE_S)
        assert not thread.is_alive()
        return outcomes[0]

    def stop(self) -> int:
        """End it as its supervisor does; return the exit status."""
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def events(self) -> list[Event]:
        """Every event in Kafka."""
        with closing(KafkaBus(self.settings.kafka)) as bus:
            return [decode_event(record.value) for record in bus.read(topics(self.settings).events.name)]

    def users(self) -> Counter[str]:
        """How often each user is in Kafka."""
        return Counter(event.user_id for event in self.events())


class Requests:
    """Reactions without end, each of its own user; after `enough` of them the event `reached` is set."""

    def __init__(self, enough: int) -> None:
        self.reached = threading.Event()
        self._enough = enough

    def __iter__(self) -> Iterator[bytes]:
        for number in itertools.count():
            if number == self._enough:
                self.reached.set()
            yield post("/reactions", json.dumps(numbered(number)).encode())


@contextmanager
def serving(broker: EmbeddedKafka, folder: Path, **changes: Any) -> Iterator[Ingest]:
    """Run ingest with two workers on a topic of its own, its log in `folder`."""
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"ingest-{uuid.uuid4().hex}-",
        ingest_port=lifecycle.claim_port("127.0.0.1", 0, "ingest_port"),
        rate_per_user_s=0,
    ).replace(**changes)
    log = folder / "log"
    with (
        log.open("wb") as written,
        running(module("pipeline.ingest"), env={**os.environ, **to_env(settings)}, stderr=written) as process,
    ):
        ingest = Ingest(process, settings, log)
        until(lambda: process.poll() is not None or is_healthy(ingest.url), "ingest answers, or has ended")
        assert process.poll() is None, log.read_text()
        yield ingest


def numbered(number: int) -> dict[str, str]:
    """A reaction that no other has: its user and time name it."""
    return reaction(f"fan-{number}", "🔥", timestamp_of(number * 1_000_000_000))


def test_thousands_of_mixed_requests_are_all_accounted_for(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """Single, array and bad bodies over fifty connections: each has its status, and Kafka has each accepted once."""
    rng = random.Random(3)
    numbers = iter(range(10**9))
    requests: list[bytes] = []
    planned: Counter[int] = Counter()
    reactions = 0
    for _ in range(6000):
        kind = rng.choice(["one", "one", "one", "array", "broken", "wrong"])
        if kind == "one":
            value: object = numbered(next(numbers))
            reactions += 1
        elif kind == "array":
            value = [numbered(next(numbers)) for _ in range(7)]
            reactions += 7
        else:
            value = [numbered(next(numbers)), {"user_id": 5}] if kind == "wrong" else None
        requests.append(post("/reactions", b"{" if kind == "broken" else json.dumps(value).encode()))
        planned[{"broken": 400, "wrong": 422}.get(kind, 202)] += 1
    with serving(broker, tmp_path) as ingest:
        outcome = ingest.hammer(requests, rounds=1)
        assert outcome.statuses == planned
        assert ingest.stop() == 0
        events = ingest.events()
    assert len(events) == reactions
    assert len({(event.user_id, event.timestamp) for event in events}) == reactions


def test_connection_goes_on_after_a_body_that_is_too_large(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """The client sees the 413, and its next request on the same connection is answered."""
    headers = {"Content-Type": "application/json"}
    with serving(broker, tmp_path) as ingest:
        connection = http.client.HTTPConnection("127.0.0.1", ingest.settings.ingest_port, timeout=DEADLINE_S)
        statuses = []
        for body in (b" " * (1 << 20), json.dumps(numbered(1)).encode()):
            if connection.sock is not None:
                # Not a new connection, which http.client would open.
                connection.auto_open = False
            connection.request("POST", "/reactions", body, headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
    assert statuses == [413, 202]


def test_sigterm_in_the_middle_of_load_flushes_what_was_accepted(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """Nothing would be flushed for a minute: the end flushes what is in Kafka, and that is all that was accepted."""
    with serving(broker, tmp_path, flush_ms=60_000) as ingest:
        outcome = ingest.hammer_and(2_000, ingest.process.terminate)
        assert ingest.process.wait(DEADLINE_S) == 0
        in_kafka = ingest.users()
        log = ingest.log.read_text()
    ended = [json.loads(line) for line in log.splitlines() if '"event": "ended"' in line]
    assert set(in_kafka.values()) == {1}
    assert in_kafka.total() == sum(line["accepted"] for line in ended)
    assert [line["given_up"] for line in ended] == [0, 0]
    assert set(outcome.statuses) == {202}
    # An answer may be cut off with its connection; one that came was kept.
    assert 1_900 < outcome.statuses[202] <= in_kafka.total() <= outcome.statuses[202] + CONNECTIONS


def test_a_durable_answer_survives_the_worker(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """With ack=durable, workers that are killed in the middle of load lose nothing they answered for."""
    with serving(broker, tmp_path, ack="durable", flush_ms=50) as ingest:
        outcome = ingest.hammer_and(1_000, lambda: kill_family(ingest.process))
        assert ingest.process.returncode == -signal.SIGKILL
        in_kafka = ingest.users()
    assert set(in_kafka.values()) == {1}
    assert set(outcome.statuses) == {202}
    assert 900 < outcome.statuses[202] <= in_kafka.total() <= outcome.statuses[202] + CONNECTIONS


def test_a_durable_answer_comes_after_the_record(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """After each answer, the end of the topic has moved by that reaction; nothing else is under way."""
    with (
        serving(broker, tmp_path, ack="durable", flush_ms=50) as ingest,
        closing(KafkaBus(ingest.settings.kafka)) as bus,
    ):
        for number in range(1, 11):
            assert post_status(f"{ingest.url}/reactions", numbered(number)) == 202
            assert sum(bus.ends(topics(ingest.settings).events.name).values()) == number


def test_a_port_in_use_is_named(broker: EmbeddedKafka) -> None:
    """A taken port ends ingest at once with status 1 and the setting's name."""
    with taken_port() as port:
        ended = run_to_end(
            module("pipeline.ingest", "--ingest-port", str(port), "--bootstrap-servers", broker.bootstrap_servers)
        )
    assert ended.returncode == 1
    assert "ingest_port is" in ended.stderr
    assert "cannot be listened on" in ended.stderr


def test_a_kafka_that_does_not_answer_is_named() -> None:
    """Without Kafka ingest ends after `kafka_wait_s` with status 1 and the setting's name."""
    options = ("--ingest-port", "0", "--bootstrap-servers", "127.0.0.1:1", "--kafka-wait-s", "0.3")
    ended = run_to_end(module("pipeline.ingest", *options))
    assert ended.returncode == 1
    assert "bootstrap_servers='127.0.0.1:1'" in ended.stderr
