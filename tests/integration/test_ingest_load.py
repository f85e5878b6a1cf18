"""The running ingest under high submission rates: every answer and every record accounted for."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
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

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

START_S = 30.0


class Running:
    """An ingest that serves, and what reached Kafka through it."""

    def __init__(self, process: subprocess.Popen[bytes], settings: Settings) -> None:
        self.process = process
        self.settings = settings

    def hammer(self, requests: list[bytes], seconds: float, connections: int = 50) -> Outcome:
        """Send `requests` in turn over `connections`, each waiting for its answer."""
        return asyncio.run(hammer("127.0.0.1", self.settings.ingest_port, requests, connections, seconds))

    def stop(self) -> int:
        """End it as its supervisor would; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def events(self) -> list[Event]:
        """Every event in Kafka."""
        with closing(KafkaBus(self.settings.kafka)) as bus:
            return [decode_event(record.value) for record in bus.read(topics(self.settings).events.name)]

    def stored(self) -> int:
        """How many records Kafka has."""
        with closing(KafkaBus(self.settings.kafka)) as bus:
            return sum(bus.ends(topics(self.settings).events.name).values())


@contextmanager
def serving(broker: EmbeddedKafka, **changes: Any) -> Iterator[Running]:
    """Ingest as its own process, two workers, on a topic of its own."""
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"load-{uuid.uuid4().hex}-",
        ingest_port=lifecycle.claim_port("127.0.0.1", 0, "ingest_port"),
        rate_per_user_s=0,
    ).replace(**changes)
    command = [sys.executable, "-m", "pipeline.ingest"]
    with subprocess.Popen(command, env={**os.environ, **to_env(settings)}, stderr=subprocess.DEVNULL) as process:
        try:
            _await_health(process, settings)
            yield Running(process, settings)
        finally:
            if process.poll() is None:
                process.terminate()


def _await_health(process: subprocess.Popen[bytes], settings: Settings) -> None:
    deadline_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{settings.ingest_port}/healthz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"ingest did not answer (exit status {process.poll()})")


def reaction(number: int) -> dict[str, str]:
    """A reaction that no other has: its user and time name it."""
    return {"user_id": f"fan-{number}", "emoji_type": "🔥", "timestamp": timestamp_of(number * 1_000_000_000)}


def test_thousands_of_mixed_requests_are_all_accounted_for(broker: EmbeddedKafka) -> None:
    """Single, array and bad bodies over fifty connections: each has its status, and Kafka has each accepted once."""
    rng = random.Random(3)
    numbers = iter(range(10**9))
    requests: list[bytes] = []
    planned: Counter[int] = Counter()
    reactions = 0
    for _ in range(6000):
        kind = rng.choice(["one", "one", "one", "array", "broken", "wrong"])
        if kind == "one":
            value: object = reaction(next(numbers))
            reactions += 1
        elif kind == "array":
            value = [reaction(next(numbers)) for _ in range(7)]
            reactions += 7
        else:
            value = [reaction(next(numbers)), {"user_id": 5}] if kind == "wrong" else None
        requests.append(post("/reactions", b"{" if kind == "broken" else json.dumps(value).encode()))
        planned[{"broken": 400, "wrong": 422}.get(kind, 202)] += 1
    with serving(broker) as ingest:
        outcome = _once(ingest, requests)
        assert outcome.statuses == planned
        assert ingest.stop() == 0
        events = ingest.events()
    assert len(events) == reactions
    assert len({(event.user_id, event.timestamp) for event in events}) == reactions


def _once(ingest: Running, requests: list[bytes]) -> Outcome:
    """Send each request exactly once."""

    async def go() -> Outcome:
        return await hammer("127.0.0.1", ingest.settings.ingest_port, requests, 50, 60, rounds=1)

    return asyncio.run(go())


def test_sigterm_under_load_keeps_what_was_accepted(broker: EmbeddedKafka) -> None:
    """Whatever was answered 202 when the process is told to end is in Kafka when it has ended."""
    with serving(broker, flush_ms=5000) as ingest:
        requests = [post("/reactions", json.dumps(reaction(n)).encode()) for n in range(3000)]
        outcome = ingest.hammer(requests, 1.0)
        assert outcome.statuses[202] > 100
        assert ingest.stop() == 0
        assert ingest.stored() == outcome.statuses.total() == outcome.statuses[202]


def test_a_durable_answer_means_that_kafka_has_it(broker: EmbeddedKafka) -> None:
    """With ack=durable the record is in Kafka before the answer is there, and a killed worker loses none."""
    with serving(broker, ack="durable", flush_ms=100) as ingest:
        outcome = _once(ingest, [post("/reactions", json.dumps(reaction(n)).encode()) for n in range(500)])
        assert outcome.statuses == {202: 500}
        assert ingest.stored() == 500


def test_a_port_in_use_is_named(broker: EmbeddedKafka) -> None:
    """A taken port ends ingest at once with status 1 and the setting's name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = _fails("--ingest-port", str(taken.getsockname()[1]), "--bootstrap-servers", broker.bootstrap_servers)
    assert "ingest_port is" in said
    assert "cannot be listened on" in said


def test_a_kafka_that_is_not_there_is_named() -> None:
    """Without Kafka ingest ends after `kafka_wait_s` with status 1 and the setting's name."""
    said = _fails("--ingest-port", "0", "--bootstrap-servers", "127.0.0.1:1", "--kafka-wait-s", "0.3")
    assert "bootstrap_servers='127.0.0.1:1'" in said


def _fails(*options: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.ingest", *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    return ended.stderr
