"""Ingest that is ended while requests are under way: whatever it answered for is in Kafka."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.bench.hammer import Outcome, hammer
from experiments.load.http1 import post
from experiments.load.schedule import timestamp_of
from pipeline import lifecycle
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.messages import decode_event
from pipeline.settings import Settings, to_env

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

REPOSITORY = Path(__file__).resolve().parents[2]
CONNECTIONS = 50
# Nothing here waits so long unless it is broken.
DEADLINE_S = 30.0


class Requests:
    """Reactions without end, each of its own user; after `enough` of them it lets whoever waits know."""

    def __init__(self, enough: int) -> None:
        self.reached = threading.Event()
        self._enough = enough

    def __iter__(self) -> Iterator[bytes]:
        for number in itertools.count():
            if number == self._enough:
                self.reached.set()
            body = {"user_id": f"fan-{number}", "emoji_type": "🔥", "timestamp": timestamp_of(number * 1_000)}
            yield post("/reactions", json.dumps(body).encode())


@contextmanager
def serving(broker: EmbeddedKafka, folder: Path, **changes: Any) -> Iterator[tuple[subprocess.Popen[bytes], Settings]]:
    """Run ingest with two workers on a topic of its own, its log in `folder`."""
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"ended-{uuid.uuid4().hex}-",
        ingest_port=lifecycle.claim_port("127.0.0.1", 0, "ingest_port"),
        rate_per_user_s=0,
    ).replace(**changes)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.ingest"],
            cwd=REPOSITORY,
            env={**os.environ, **to_env(settings)},
            stderr=log,
        )
    try:
        deadline_s = time.monotonic() + DEADLINE_S
        while not answers(settings):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline_s
        yield process, settings
    finally:
        if process.poll() is None:
            kill(process)


def answers(settings: Settings) -> bool:
    """Whether ingest is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.ingest_port}/healthz", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        time.sleep(0.05)
        return False


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill ingest and its workers at once, so that none gets to flush."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in family:
        each.kill()
    process.wait(DEADLINE_S)
    psutil.wait_procs(family, DEADLINE_S)


def hammered(settings: Settings, enough: int, then: Callable[[], object]) -> Outcome:
    """Hammer ingest, do `then` while `enough` requests and more are under way; return what was answered."""
    requests = Requests(enough)
    outcomes: list[Outcome] = []

    def send() -> None:
        # It ends when the connections do: the time is only for a server that goes on and on.
        outcomes.append(
            asyncio.run(hammer("127.0.0.1", settings.ingest_port, requests, CONNECTIONS, DEADLINE_S))  # type: ignore[arg-type]
        )

    thread = threading.Thread(target=send)
    thread.start()
    assert requests.reached.wait(DEADLINE_S)
    then()
    thread.join(2 * DEADLINE_S)
    assert not thread.is_alive()
    return outcomes[0]


def stored(settings: Settings) -> Counter[str]:
    """Return how often each user is in Kafka."""
    with closing(KafkaBus(settings.kafka)) as bus:
        return Counter(decode_event(record.value).user_id for record in bus.read(topics(settings).events.name))


def test_sigterm_in_the_middle_of_load_flushes_what_was_accepted(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """Nothing would be flushed for a minute: what is in Kafka is the end's doing, and it is all that was accepted."""
    with serving(broker, tmp_path, flush_ms=60_000) as (process, settings):
        outcome = hammered(settings, 2_000, process.terminate)
        assert process.wait(DEADLINE_S) == 0
    in_kafka = stored(settings)
    ended = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if '"event": "ended"' in line]
    assert set(in_kafka.values()) == {1}
    assert in_kafka.total() == sum(line["accepted"] for line in ended)
    assert [line["given_up"] for line in ended] == [0, 0]
    assert set(outcome.statuses) == {202}
    # An answer may be cut off with its connection; one that came was kept.
    assert 1_900 < outcome.statuses[202] <= in_kafka.total() <= outcome.statuses[202] + CONNECTIONS


def test_a_durable_answer_survives_the_worker(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """With ack=durable, workers that are killed in the middle of load lose nothing they answered for."""
    with serving(broker, tmp_path, ack="durable", flush_ms=50) as (process, settings):
        outcome = hammered(settings, 1_000, lambda: kill(process))
        assert process.returncode == -signal.SIGKILL
    in_kafka = stored(settings)
    assert set(in_kafka.values()) == {1}
    assert set(outcome.statuses) == {202}
    assert 900 < outcome.statuses[202] <= in_kafka.total() <= outcome.statuses[202] + CONNECTIONS


def test_a_durable_answer_comes_after_the_record(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """After each answer, the end of the topic has moved by that reaction; nothing else is under way."""
    with (
        serving(broker, tmp_path, ack="durable", flush_ms=50) as (_, settings),
        closing(KafkaBus(settings.kafka)) as bus,
    ):
        requests = iter(Requests(0))
        for number in range(1, 11):
            body = next(requests).partition(b"\r\n\r\n")[2]
            request = urllib.request.Request(
                f"http://127.0.0.1:{settings.ingest_port}/reactions", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                assert answer.status == 202
            assert sum(bus.ends(topics(settings).events.name).values()) == number
