"""Ingest's answers: every row of the design's table, over a sink in memory."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from pipeline.ingest.buffer import Buffer, Flusher
from pipeline.ingest.server import create_app
from pipeline.messages import Event, decode_event
from pipeline.settings import Settings

GOOD = {"user_id": "fan", "emoji_type": "❤", "timestamp": "2026-11-23T09:30:00Z"}
# Nothing here waits so long unless it is broken.
DEADLINE_S = 20.0


class Kafka:
    """A sink in memory that can be held, as a broker that is away holds a flush."""

    lost = errors = 0

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        self.values: list[bytes] = []
        self._outstanding = 0

    def write(self, values: Sequence[bytes]) -> None:
        """Take a flush."""
        self.values += values
        self._outstanding += len(values)

    def wait(self, timeout_s: float) -> int:
        """Acknowledge, or say how many are outstanding."""
        self.asked.set()
        if self.answers.wait(min(timeout_s, 0.01)):
            self._outstanding = 0
        return self._outstanding

    def close(self) -> None:
        """Nothing is held."""

    @property
    def events(self) -> list[Event]:
        """What a consumer would read."""
        return [decode_event(value) for value in self.values]


class Stage:
    """One worker: its client, its Kafka, and its parts."""

    def __init__(self, **changes: Any) -> None:
        values = Settings().replace(**{"flush_ms": 60_000, **changes})
        self.kafka = Kafka()
        self.buffer = Buffer(values.buffer_max, wake_at=values.flush_batch)
        self.flusher = Flusher(
            self.buffer, lambda: self.kafka, flush_ms=values.flush_ms, lead_ms=50, aligned=True, clock_ns=lambda: 0
        )
        self.flusher.start()
        self.client: FlaskClient = create_app(values, self.buffer, self.flusher, clock_ns=lambda: 1).test_client()

    def post(self, body: Any, content_type: str = "application/json") -> TestResponse:
        """Post a body; what is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post("/reactions", data=data, content_type=content_type)

    def close(self) -> None:
        """End it, without waiting for a Kafka that does not answer."""
        self.kafka.answers.set()
        self.flusher.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Stage]]:
    """Return a function that starts a stage with changed settings; all are ended with the test."""
    started: list[Stage] = []

    def begin(**changes: Any) -> Stage:
        started.append(Stage(**changes))
        return started[-1]

    yield begin
    for stage in started:
        stage.close()


def assert_problem(answer: TestResponse, status: int, *culprits: str) -> dict[str, Any]:
    """Check that an answer is a problem document (RFC 9457) that names each culprit; return it."""
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    document = json.loads(answer.data)
    assert document["status"] == status
    assert document["title"]
    for culprit in culprits:
        assert culprit in document["detail"]
    return document


def test_a_reaction_is_accepted_without_waiting_for_kafka(start: Callable[..., Stage]) -> None:
    """202 comes while Kafka has seen nothing; the reaction arrives canonical and stamped with the next flush."""
    stage = start()
    answer = stage.post(GOOD)
    assert (answer.status_code, json.loads(answer.data)) == (202, {"accepted": 1})
    assert answer.content_type == "application/json"
    assert stage.kafka.values == []
    stage.close()
    assert stage.kafka.events == [Event("fan", "❤️", "2026-11-23T09:30:00Z", accepted_ns=1, flushed_ns=0)]


def test_an_array_is_accepted_whole(start: Callable[..., Stage]) -> None:
    """The answer counts the items; they arrive in order."""
    stage = start()
    answer = stage.post([{**GOOD, "user_id": f"fan-{n}"} for n in range(7)])
    assert (answer.status_code, json.loads(answer.data)) == (202, {"accepted": 7})
    stage.close()
    assert [event.user_id for event in stage.kafka.events] == [f"fan-{n}" for n in range(7)]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_may_be_announced_in_any_legal_way(start: Callable[..., Stage], content_type: str) -> None:
    """Parameters and capitals of the media type do not matter."""
    assert start().post(GOOD, content_type).status_code == 202


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded", "text/json"])
def test_anything_but_json_is_415(start: Callable[..., Stage], content_type: str) -> None:
    """The answer names the type that was seen and the one to send."""
    answer = start().post(GOOD, content_type)
    assert_problem(answer, 415, repr(content_type), "send Content-Type: application/json")


@pytest.mark.parametrize("body", [b"", b"{", b'[{"user_id": 5}, ', b'{"user_id": "\\ud83d"}', b"[" * 100_000])
def test_what_is_no_json_is_400(start: Callable[..., Stage], body: bytes) -> None:
    """Broken JSON, also behind a wrong field, is the client's error and not ours."""
    stage = start()
    assert_problem(stage.post(body), 400, "not valid JSON")
    assert stage.buffer.accepted == 0


def test_a_wrong_field_is_422(start: Callable[..., Stage]) -> None:
    """The answer names the field and says what a reaction is."""
    document = assert_problem(start().post({**GOOD, "timestamp": "2026-11-23T09:30:00"}), 422, "in field timestamp")
    assert [error["field"] for error in document["errors"]] == ["timestamp"]


def test_an_array_with_bad_items_names_each_and_accepts_nothing(start: Callable[..., Stage]) -> None:
    """The good items between the bad ones are not accepted either."""
    stage = start()
    answer = stage.post([GOOD, 5, GOOD, {**GOOD, "emoji_type": "joy"}, {}])
    document = assert_problem(answer, 422, "3 item(s), the first at index 1", "nothing was accepted")
    named = [(error["index"], error["field"]) for error in document["errors"]]
    assert named == [(1, ""), (3, "emoji_type"), (4, "user_id")]
    stage.close()
    assert stage.kafka.values == []


def test_a_body_over_the_limit_is_413(start: Callable[..., Stage]) -> None:
    """The limit is inclusive, named with its setting, and holds with and without a Content-Length."""
    body = json.dumps(GOOD).encode()
    stage = start(body_max_bytes=len(body))
    assert stage.post(body).status_code == 202
    assert_problem(stage.post(body + b" "), 413, f"larger than {len(body)} bytes (body_max_bytes)")
    assert_problem(stage.post(b" " * (1 << 20)), 413, "split it")
    for spaces, status in ((b"", 202), (b" ", 413)):
        environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
        answer = stage.client.post(
            "/reactions",
            input_stream=io.BytesIO(body + spaces),
            content_type="application/json",
            environ_overrides=environ,
        )
        assert answer.status_code == status
    assert stage.buffer.accepted == 2


def test_a_body_announced_as_too_large_is_not_read(start: Callable[..., Stage]) -> None:
    """Its Content-Length is enough to refuse it."""
    stage = start()
    unread = io.BytesIO(b" " * (1 << 20))
    environ = {"wsgi.input": unread, "CONTENT_LENGTH": str(1 << 20)}
    answer = stage.client.post("/reactions", content_type="application/json", environ_overrides=environ)
    assert_problem(answer, 413, "body_max_bytes")
    assert unread.tell() == 0


def test_ten_thousand_items_are_413(start: Callable[..., Stage]) -> None:
    """An array over `array_max` is refused with both numbers, and nothing of it is accepted."""
    stage = start(body_max_bytes=4 << 20)
    assert_problem(stage.post([GOOD] * 10_000), 413, "10000 items, at most 1000")
    assert stage.buffer.accepted == 0


def test_a_user_over_the_limit_is_429(start: Callable[..., Stage]) -> None:
    """Who sends too much is named and told when to come back; others are not affected."""
    stage = start(rate_per_user_s=3)
    assert [stage.post(GOOD).status_code for _ in range(3)] == [202] * 3
    answer = stage.post(GOOD)
    assert_problem(answer, 429, "user_id 'fan'", "more than 3 reactions a second")
    assert answer.headers["Retry-After"] == "1"
    assert stage.post({**GOOD, "user_id": "other"}).status_code == 202
    assert stage.buffer.accepted == 4


def test_a_full_buffer_is_503(start: Callable[..., Stage]) -> None:
    """Beyond `buffer_max` nothing is accepted until Kafka has taken something; what was accepted is kept."""
    stage = start(buffer_max=3, flush_batch=3)
    stage.kafka.answers.clear()
    assert stage.post([GOOD] * 2).status_code == 202
    answer = stage.post([GOOD] * 2)
    assert_problem(answer, 503, "2 of 3 reactions (buffer_max)", "try again later")
    assert answer.headers["Retry-After"] == "1"
    assert stage.post(GOOD).status_code == 202
    assert stage.post(GOOD).status_code == 503
    stage.close()
    assert len(stage.kafka.values) == 3


def test_a_kafka_out_of_reach_too_long_is_503(start: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """After `kafka_out_s` of silence requests are refused and health says so; when it answers, all is well again."""
    stage = start(flush_batch=1, kafka_out_s=10.0)
    stage.kafka.answers.clear()
    assert stage.post(GOOD).status_code == 202
    assert stage.kafka.asked.wait(DEADLINE_S)
    assert stage.client.get("/healthz").status_code == 200
    real_silent_s = stage.flusher.silent_s
    monkeypatch.setattr(stage.flusher, "silent_s", lambda: real_silent_s() + 11.0)
    answer = stage.post(GOOD)
    assert_problem(answer, 503, "acknowledged nothing for 11 s", "kafka_out_s=10")
    assert answer.headers["Retry-After"] == "5"
    health = stage.client.get("/healthz")
    assert (health.status_code, health.json["status"]) == (503, "Kafka is out of reach")
    monkeypatch.undo()
    stage.kafka.answers.set()
    assert stage.post(GOOD).status_code == 202
    stage.close()
    assert len(stage.kafka.values) == 2


def test_durable_answers_when_kafka_has_acknowledged(start: Callable[..., Stage]) -> None:
    """With `ack=durable` the 202 comes after the acknowledgement and not before."""
    stage = start(ack="durable", flush_batch=1, flush_ms=1_000)
    stage.kafka.answers.clear()
    answers: list[int] = []
    request = threading.Thread(target=lambda: answers.append(stage.post(GOOD).status_code))
    request.start()
    assert stage.kafka.asked.wait(DEADLINE_S)
    assert len(stage.kafka.values) == 1
    assert answers == []
    stage.kafka.answers.set()
    request.join(DEADLINE_S)
    assert answers == [202]


def test_durable_gives_up_waiting_with_503(start: Callable[..., Stage]) -> None:
    """Without an acknowledgement in time the answer says that the reaction is kept, and it is sent in the end."""
    stage = start(ack="durable", flush_batch=1, flush_ms=1, kafka_out_s=0.05)
    stage.kafka.answers.clear()
    answer = stage.post(GOOD)
    assert_problem(answer, 503, "no acknowledgement within 0.051 s", "may count them twice")
    assert answer.headers["Retry-After"] == "5"
    stage.close()
    assert len(stage.kafka.values) == 1


def test_health_tells_what_was_accepted_and_what_waits(start: Callable[..., Stage]) -> None:
    """`/healthz` answers 200 with the worker's own figures."""
    stage = start()
    stage.post([GOOD] * 4)
    health = stage.client.get("/healthz")
    assert health.status_code == 200
    assert (health.json["stage"], health.json["status"]) == ("ingest", "ok")
    assert (health.json["accepted"], health.json["waiting"], health.json["kafka_silent_s"]) == (4, 4, 0.0)


def test_the_page_of_the_same_host_may_send_reactions(start: Callable[..., Stage]) -> None:
    """The preflight and every answer, refusals and health too, name its origin; Retry-After may be read."""
    client = start().client
    page = {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8080"}
    asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = client.options("/reactions", headers=asked)
    assert preflight.status_code in {200, 204}
    assert preflight.headers["Access-Control-Allow-Headers"] == "Content-Type"
    for answer in (
        preflight,
        client.post("/reactions", json=GOOD, headers=page),
        client.post("/reactions", json={}, headers=page),
        client.get("/healthz", headers=page),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
        assert "Origin" in answer.headers["Vary"]
        assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example", None])
def test_other_pages_may_not(start: Callable[..., Stage], origin: str | None) -> None:
    """A browser shows them no answer and sends no JSON; a program that names no origin gets no such headers."""
    headers = {"Host": "127.0.0.1:8000", **({} if origin is None else {"Origin": origin})}
    client = start().client
    for answer in (
        client.options("/reactions", headers=headers),
        client.post("/reactions", json=GOOD, headers=headers),
    ):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/reactions", 405), ("POST", "/", 404), ("POST", "/healthz", 405)]
)
def test_what_is_not_served_is_a_problem_document(
    start: Callable[..., Stage], method: str, path: str, status: int
) -> None:
    """Unknown paths and methods are answered like any other error."""
    assert_problem(start().client.open(path, method=method), status)


def test_an_error_of_ours_is_a_problem_document(start: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a fault in the code answers 500 in the same form, without its inner workings."""
    stage = start()
    monkeypatch.setattr(stage.buffer, "add", lambda records: 1 / 0)
    answer = stage.post(GOOD)
    assert_problem(answer, 500)
    assert b"ZeroDivision" not in answer.data


@pytest.fixture(scope="module")
def open_stage() -> Iterator[Stage]:
    """One stage for all examples of a property."""
    stage = Stage()
    yield stage
    stage.close()


@given(body=st.binary(max_size=300), content_type=st.sampled_from(["application/json", "text/plain", "a/b;c"]))
def test_no_request_is_an_error_of_ours(open_stage: Stage, body: bytes, content_type: str) -> None:
    """Whatever is posted is answered with a status of the design's table, and what is refused leaves no trace."""
    before = open_stage.buffer.accepted
    answer = open_stage.post(body, content_type)
    assert answer.status_code in {202, 400, 413, 415, 422}
    if answer.status_code != 202:
        assert_problem(answer, answer.status_code)
        assert open_stage.buffer.accepted == before
