"""A stage that hangs is found and replaced; one that is unwell, slow or starting is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from pipeline.supervisor import liveness
from pipeline.supervisor.liveness import HUNG_S, KAFKA_HUNG_S, Liveness
from pipeline.turns import STALLED_S
from tests.harness.processes import taken_port


class Stage(BaseHTTPRequestHandler):
    """Answers as its server is told to."""

    server: StageServer

    def do_GET(self) -> None:
        """Answer 503, if at all."""
        if self.server.answers.wait(20):
            # Who asked has given up meanwhile.
            with suppress(BrokenPipeError):
                self.send_response(503)
                self.end_headers()
                self.wfile.write(self.server.health)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class StageServer(ThreadingHTTPServer):
    """A stage that hangs while `answers` is not set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Stage)
        self.answers = Event()
        self.answers.set()
        self.health = b""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def stage() -> Iterator[StageServer]:
    """Yield a stage that answers."""
    with StageServer() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


class Watched:
    """What asks the stages at `urls`, by a clock that moves when it is told to; `replaced` names whom it replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, urls: dict[str, str]) -> None:
        self.replaced: list[str] = []
        self.urls = urls
        self.kafka_answers = True
        self.own_kafka = False
        self._patch = monkeypatch
        self._now_s = 1000.0
        monkeypatch.setattr(liveness, "time", self)
        self._liveness = Liveness(
            lambda: self.urls, self.replaced.append, lambda: self.kafka_answers, lambda: self.own_kafka
        )

    def monotonic(self) -> float:
        """Return the time, s."""
        return self._now_s

    def probe_after(self, passed_s: float, wait_s: float = 60) -> None:
        """Ask each stage once, `passed_s` later; wait for an answer for at most `wait_s`, on any machine."""
        self._now_s += passed_s
        self._patch.setattr(liveness, "PROBE_S", wait_s)
        self._liveness.probe()


SILENT = 0.05
"""How long to wait for an answer that does not come, s."""


def test_stage_that_hangs_is_replaced_once(stage: StageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After HUNG_S without an answer, and not again before as much time has passed."""
    watch = Watched(monkeypatch, {"ingest": stage.url})
    watch.probe_after(0)
    stage.answers.clear()
    watch.probe_after(HUNG_S, SILENT)
    assert watch.replaced == []
    watch.probe_after(1, SILENT)
    assert watch.replaced == ["ingest"]
    watch.probe_after(1, SILENT)
    watch.probe_after(HUNG_S, SILENT)
    assert watch.replaced == ["ingest"]
    watch.probe_after(1, SILENT)
    assert watch.replaced == ["ingest"] * 2


def test_others_are_left_alone(stage: StageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that answers is not replaced with one that hangs."""
    with taken_port() as port:
        watch = Watched(monkeypatch, {"gone": f"http://127.0.0.1:{port}", "ingest": stage.url})
    watch.probe_after(0)
    watch.probe_after(HUNG_S + 1)
    watch.probe_after(HUNG_S + 1)
    assert watch.replaced == ["gone"]


def test_answer_of_any_status_is_one(stage: StageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 says that Kafka is away, and not that the stage hangs; an answer after a silence begins anew."""
    watch = Watched(monkeypatch, {"ingest": stage.url})
    watch.probe_after(0)
    for _ in range(3):
        stage.answers.clear()
        watch.probe_after(HUNG_S - 1, SILENT)
        stage.answers.set()
        watch.probe_after(1)
    assert watch.replaced == []


def test_stage_that_starts_is_not_asked(stage: StageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its silence counts from when it is ready."""
    watch = Watched(monkeypatch, {"ingest": stage.url})
    stage.answers.clear()
    watch.probe_after(0, SILENT)
    watch.urls = {}
    watch.probe_after(HUNG_S + 1, SILENT)
    watch.urls = {"ingest": stage.url}
    watch.probe_after(1, SILENT)
    watch.probe_after(HUNG_S, SILENT)
    assert watch.replaced == []
    watch.probe_after(1, SILENT)
    assert watch.replaced == ["ingest"]


def test_closed_port_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a stage whose server has ended while its process lives."""
    with taken_port() as port:
        watch = Watched(monkeypatch, {"ingest": f"http://127.0.0.1:{port}"})
    watch.probe_after(0)
    watch.probe_after(HUNG_S + 1)
    assert watch.replaced == ["ingest"]


def test_stage_that_says_it_does_not_go_on_is_replaced(stage: StageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server answers from a thread of its own, and the loop that works has not come round for too long."""
    watch = Watched(monkeypatch, {"spark": stage.url})
    stage.health = b'{"status": "ok", "stalled_s": %d}' % (STALLED_S + 1)
    watch.probe_after(0)
    watch.probe_after(HUNG_S)
    assert watch.replaced == []
    watch.probe_after(1)
    assert watch.replaced == ["spark"]


@pytest.mark.parametrize("health", [b'{"stalled_s": 0.2}', b"{}", b"[]", b"no JSON", b'{"stalled_s": null}'])
def test_stage_that_goes_on_is_left_alone(stage: StageServer, monkeypatch: pytest.MonkeyPatch, health: bytes) -> None:
    """As is one whose answer says nothing of it."""
    watch = Watched(monkeypatch, {"spark": stage.url})
    stage.health = health
    for _ in range(4):
        watch.probe_after(HUNG_S + 1)
    assert watch.replaced == []


def test_loop_that_waits_for_kafka_is_not_held_against_a_stage(
    stage: StageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long Kafka is away; when it is back, the loop has the usual time to come round."""
    watch = Watched(monkeypatch, {"spark": stage.url})
    stage.health = b'{"stalled_s": 900}'
    watch.kafka_answers = False
    for _ in range(9):
        watch.probe_after(HUNG_S + 1)
    watch.kafka_answers = True
    watch.probe_after(STALLED_S)
    watch.probe_after(1)
    watch.probe_after(HUNG_S - 2)
    assert watch.replaced == []
    stage.health = b'{"stalled_s": 0}'
    watch.probe_after(1)
    stage.health = b'{"stalled_s": 900}'
    watch.probe_after(HUNG_S)
    assert watch.replaced == []
    watch.probe_after(1)
    assert watch.replaced == ["spark"]


def test_one_probe_that_comes_too_early_ends_nothing(stage: StageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the whole chain was stopped for long, the supervisor may go on before a stage does."""
    watch = Watched(monkeypatch, {"ingest": stage.url})
    watch.probe_after(0)
    stage.health = b'{"stalled_s": 900}'
    watch.probe_after(900)
    stage.health = b'{"stalled_s": 0.1}'
    watch.probe_after(5)
    watch.probe_after(900)
    assert watch.replaced == []


def test_kafka_of_this_chain_is_replaced_if_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later than a stage, so that one that was only stopped for two minutes goes on; another's Kafka never."""
    watch = Watched(monkeypatch, {})
    watch.kafka_answers = False
    watch.probe_after(0)
    watch.probe_after(KAFKA_HUNG_S + 1)
    watch.own_kafka = True
    watch.probe_after(0)
    watch.probe_after(120)
    watch.kafka_answers = True
    watch.probe_after(1)
    watch.kafka_answers = False
    watch.probe_after(KAFKA_HUNG_S)
    assert watch.replaced == []
    watch.probe_after(1)
    assert watch.replaced == ["kafka"]
