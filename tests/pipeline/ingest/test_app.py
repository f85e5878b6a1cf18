"""Ingest's answers, every status of the HTTP API, over an in-memory sink."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from pipeline.ingest import flusher as flusher_module
from pipeline.ingest.app import create_app
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.reactions import Reactions
from pipeline.messages import Event, decode_event
from pipeline.settings import Settings
from tests.harness.waiting import until

GOOD = {"user_id": "fan", "emoji_type": "❤", "timestamp": "2026-11-23T09:30:00Z"}
# Longer than any wait of a passing test.
DEADLINE_S = 60.0


class Kafka:
    """An in-memory sink that can withhold acknowledgements, as an unreachable broker does, and refuse `unwanted`."""

    lost = errors = 0

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        self.values: list[bytes] = []
        self.unwanted = b""
        self.refusals: dict[bytes, str] = {}
        self._outstanding = 0

    def write(self, values: Sequence[bytes]) -> None:
        """Take a flush."""
        bad = [value for value in values if self.unwanted and self.unwanted in value]
        self.refusals |= dict.fromkeys(bad, "Broker: Topic authorization failed")
        self.values += [value for value in values if value not in self.refusals]
        self._outstanding += len(values)

    def wait(self, timeout_s: float) -> int:
        """Acknowledge, or return how many are outstanding."""
        self.asked.set()
        if self.answers.wait(min(timeout_s, 0.01)):
            self._outstanding = 0
        return self._outstanding

    def close(self) -> None:
        """Nothing is held."""

    @property
    def events(self) -> list[Event]:
        """The events that a consumer would read."""
        return [decode_event(value) for value in self.values]


class Stage:
    """One worker: its client, its Kafka, and its parts."""

    def __init__(self, disk: Callable[[], str] = lambda: "", **changes: Any) -> None:
        values = msgspec.structs.replace(Settings(), **{"flush_ms": 60_000, **changes})
        self.kafka = Kafka()
        self.buffer = Buffer(values.buffer_max, wake_at=values.flush_batch)
        self.flusher = Flusher(
            self.buffer,
            lambda: self.kafka,
            flush_ms=values.flush_ms,
            lead_ms=50,
            aligned=True,
            clock_ns=lambda: 0,
            disk=disk,
        )
        self.flusher.start()
        self.reactions = Reactions(values, self.buffer, self.flusher, clock_ns=lambda: 1)
        self.client: FlaskClient = create_app(self.reactions).test_client()

    def post(self, body: Any, content_type: str = "application/json") -> TestResponse:
        """Post a body; anything but bytes is encoded as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post("/reactions", data=data, content_type=content_type)

    def close(self) -> None:
        """Release Kafka and close the flusher."""
        self.kafka.answers.set()
        self.flusher.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Stage]]:
    """Return a function that starts a stage with changed settings; the fixture closes all of them."""
    started: list[Stage] = []

    def start_stage(**changes: Any) -> Stage:
        started.append(Stage(**changes))
        return started[-1]

    yield start_stage
    for stage in started:
        stage.close()


def assert_problem(answer: TestResponse, status: int, *details: str) -> dict[str, Any]:
    """Check that an answer is a problem document (RFC 9457) whose detail contains each of `details`; return it."""
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    document = json.loads(answer.data)
    assert document["status"] == status
    assert document["title"]
    for detail in details:
        assert detail in document["detail"]
    return document


def test_reaction_returns_202_without_waiting_for_kafka(start: Callable[..., Stage]) -> None:
    """202 comes before Kafka has the reaction; the next flush sends it in canonical form with its stamps."""
    stage = start()
    answer = stage.post(GOOD)
    assert (answer.status_code, json.loads(answer.data)) == (202, {"accepted": 1})
    assert answer.content_type == "application/json"
    assert stage.kafka.values == []
    stage.close()
    assert stage.kafka.events == [Event("fan", "❤️", "2026-11-23T09:30:00Z", accepted_ns=1, flushed_ns=0)]


def test_array_returns_202_and_keeps_its_order(start: Callable[..., Stage]) -> None:
    """The answer counts the items; they arrive in order."""
    stage = start()
    answer = stage.post([{**GOOD, "user_id": f"fan-{n}"} for n in range(7)])
    assert (answer.status_code, json.loads(answer.data)) == (202, {"accepted": 7})
    stage.close()
    assert [event.user_id for event in stage.kafka.events] == [f"fan-{n}" for n in range(7)]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_content_type_with_parameters_or_capitals_returns_202(start: Callable[..., Stage], content_type: str) -> None:
    """Any legal spelling of the media type is accepted."""
    assert start().post(GOOD, content_type).status_code == 202


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded", "text/json"])
def test_other_content_type_returns_415(start: Callable[..., Stage], content_type: str) -> None:
    """The answer names the received type and the type to send."""
    answer = start().post(GOOD, content_type)
    assert_problem(answer, 415, repr(content_type), "send Content-Type: application/json")


def test_compressed_body_returns_415(start: Callable[..., Stage]) -> None:
    """The answer names the header and what is accepted; the request has no effect."""
    stage = start()
    answer = stage.client.post(
        "/reactions",
        data=gzip.compress(json.dumps(GOOD).encode()),
        content_type="application/json",
        headers={"Content-Encoding": "gzip"},
    )
    assert_problem(answer, 415, "Content-Encoding is 'gzip'", "send the body without compression")
    assert answer.headers["Accept-Encoding"] == "identity"
    stage.close()
    assert stage.kafka.values == []


@pytest.mark.parametrize("body", [b"", b"{", b'[{"user_id": 5}, ', b'{"user_id": "\\ud83d"}', b"[" * 100_000])
def test_invalid_json_returns_400(start: Callable[..., Stage], body: bytes) -> None:
    """Broken JSON is a client error, also after a wrong field."""
    stage = start()
    assert_problem(stage.post(body), 400, "not valid JSON")
    assert stage.buffer.accepted == 0


def test_wrong_field_returns_422(start: Callable[..., Stage]) -> None:
    """The answer names the field and describes a reaction."""
    document = assert_problem(start().post({**GOOD, "timestamp": "2026-11-23"}), 422, "in field timestamp")
    assert [error["field"] for error in document["errors"]] == ["timestamp"]


def test_array_with_bad_items_returns_422_and_names_each(start: Callable[..., Stage]) -> None:
    """Nothing is accepted, not even the good items between the bad ones."""
    stage = start()
    answer = stage.post([GOOD, 5, GOOD, {**GOOD, "emoji_type": "joy"}, {}])
    document = assert_problem(answer, 422, "3 item(s), the first at index 1", "nothing was accepted")
    named = [(error["index"], error["field"]) for error in document["errors"]]
    assert named == [(1, ""), (3, "emoji_type"), (4, "user_id")]
    stage.close()
    assert stage.kafka.values == []


def test_body_over_the_limit_returns_413(start: Callable[..., Stage]) -> None:
    """The limit is inclusive, the answer names its setting, and it holds with and without a Content-Length."""
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


def test_array_over_array_max_returns_413(start: Callable[..., Stage]) -> None:
    """The answer names both numbers, and nothing is accepted."""
    stage = start(body_max_bytes=4 << 20)
    assert_problem(stage.post([GOOD] * 10_000), 413, "10000 items, at most 1000")
    assert stage.buffer.accepted == 0


def test_user_over_the_rate_returns_429(start: Callable[..., Stage]) -> None:
    """The answer names the user and the time to wait; other users are not affected."""
    stage = start(rate_per_user_s=3)
    assert [stage.post(GOOD).status_code for _ in range(3)] == [202] * 3
    answer = stage.post(GOOD)
    assert_problem(answer, 429, "user_id 'fan'", "more than 3 reactions per second")
    assert answer.headers["Retry-After"] == "1"
    assert stage.post({**GOOD, "user_id": "other"}).status_code == 202
    assert stage.buffer.accepted == 4


def test_address_over_its_rate_returns_429_whoever_its_users_are(start: Callable[..., Stage]) -> None:
    """New users do not help; other addresses are not affected, and what is refused spends no allowance."""
    stage = start(rate_per_address_s=5, array_max=5, rate_per_user_s=2)
    other = {"REMOTE_ADDR": "192.0.2.9"}

    def post(*users: str, **options: Any) -> TestResponse:
        return stage.client.post("/reactions", json=[{**GOOD, "user_id": user} for user in users], **options)

    assert post("a", "b", "c").status_code == 202
    assert post("a", "a").status_code == 429
    answer = post("d", "e", "f")
    assert_problem(answer, 429, "127.0.0.1 sends more than 5 reactions per second (rate_per_address_s)")
    assert answer.headers["Retry-After"] == "1"
    assert post("d", "d", environ_base=other).status_code == 202
    assert post("e", "f").status_code == 202
    assert post("g").status_code == 429
    assert stage.buffer.accepted == 7


def test_array_over_the_rate_of_one_user_returns_413(start: Callable[..., Stage]) -> None:
    """It would be over the limit in any second, so that waiting does not help; the user may go on."""
    stage = start(rate_per_user_s=3)
    answer = stage.post([GOOD] * 4)
    assert_problem(answer, 413, "4 reactions of user_id 'fan', at most 3 per second", "split it")
    assert "Retry-After" not in answer.headers
    assert stage.post([GOOD] * 3).status_code == 202


def test_full_buffer_returns_503(start: Callable[..., Stage]) -> None:
    """Beyond `buffer_max` nothing is accepted until Kafka acknowledges; accepted reactions are kept."""
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


def test_unreachable_kafka_returns_503(start: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """After `kafka_out_s` without an acknowledgement requests and health get 503, until Kafka acknowledges again."""
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


def test_durable_answers_after_the_acknowledgement(start: Callable[..., Stage]) -> None:
    """With `ack=durable` 202 comes after Kafka's acknowledgement and not before."""
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


def test_durable_without_acknowledgement_returns_503(start: Callable[..., Stage]) -> None:
    """The answer says that the reaction is kept, and it is sent later."""
    stage = start(ack="durable", flush_batch=1, flush_ms=1, kafka_out_s=0.05)
    stage.kafka.answers.clear()
    answer = stage.post(GOOD)
    assert_problem(answer, 503, "no acknowledgement within 0.051 s", "may count them twice")
    assert answer.headers["Retry-After"] == "5"
    stage.close()
    assert len(stage.kafka.values) == 1


def test_durable_answer_says_what_kafka_refused(start: Callable[..., Stage]) -> None:
    """No 202 for a reaction that is not in Kafka; of an array that is there in part the answer says how much."""
    stage = start(ack="durable", flush_batch=1)
    stage.kafka.unwanted = b"mallory"
    refused = [{**GOOD, "user_id": "mallory"}] * 2
    document = assert_problem(
        stage.post([GOOD, *refused]),
        503,
        "refused 2 of 3 reactions permanently (Broker: Topic authorization failed)",
        "1 others are counted, and would be twice",
    )
    assert document["title"] == "Kafka refuses reactions"
    assert [event.user_id for event in stage.kafka.events] == ["fan"]


@pytest.mark.parametrize("ack", ["async", "durable"])
def test_nothing_is_accepted_while_kafka_refuses(
    start: Callable[..., Stage], ack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal requests and health get 503; some seconds later a flush tries again, and all is well."""
    stage = start(ack=ack, flush_batch=1)
    stage.kafka.unwanted = b"fan"
    assert stage.post(GOOD).status_code == (202 if ack == "async" else 503)
    until(lambda: stage.flusher.refuses(), "the refusal is known")
    accepted = stage.buffer.accepted
    answer = stage.post(GOOD)
    assert_problem(answer, 503, "of the last flush permanently (Broker: Topic authorization failed), so nothing")
    assert answer.headers["Retry-After"] == "5"
    health = stage.client.get("/healthz")
    assert (health.status_code, health.json["status"]) == (503, "Kafka refuses reactions")
    assert stage.buffer.accepted == accepted
    stage.kafka.unwanted = b""
    monkeypatch.setattr(flusher_module, "REFUSED_S", 0.0)
    assert stage.post(GOOD).status_code == 202
    until(lambda: stage.client.get("/healthz").status_code == 200, "a flush was taken")


def test_nearly_full_disk_returns_503(start: Callable[..., Stage]) -> None:
    """Requests and health get it until a flush finds room again; nothing is accepted meanwhile."""
    reason = ["no room"]
    stage = start(flush_batch=1, flush_ms=5, disk=lambda: reason[0])
    until(lambda: stage.flusher.disk_full, "the disk was looked at")
    answer = stage.post(GOOD)
    assert_problem(answer, 503, "no room; nothing was accepted")
    assert answer.headers["Retry-After"] == "10"
    health = stage.client.get("/healthz")
    assert (health.status_code, health.json["status"]) == (503, "Disk nearly full")
    reason[0] = ""
    until(lambda: stage.client.get("/healthz").status_code == 200, "there is room")
    assert stage.post(GOOD).status_code == 202
    assert stage.buffer.accepted == 1


def test_health_reports_accepted_and_waiting_reactions(start: Callable[..., Stage]) -> None:
    """`/healthz` answers 200 with the worker's own figures."""
    stage = start()
    stage.post([GOOD] * 4)
    health = stage.client.get("/healthz")
    assert health.status_code == 200
    assert (health.json["stage"], health.json["status"]) == ("ingest", "ok")
    assert (health.json["accepted"], health.json["waiting"], health.json["kafka_silent_s"]) == (4, 4, 0.0)


def test_registrys_page_and_listed_pages_may_react(start: Callable[..., Stage]) -> None:
    """The rule is made of the settings; preflight, acceptance, refusal and health can be read by the page."""
    client = start(registry_port=9090, origins="http://localhost:3000").client
    for origin in ("http://127.0.0.1:9090", "http://localhost:3000"):
        page = {"Host": "127.0.0.1:8000", "Origin": origin}
        for status, answer in (
            (204, client.options("/reactions", headers={**page, "Access-Control-Request-Method": "POST"})),
            (202, client.post("/reactions", json=GOOD, headers=page)),
            (422, client.post("/reactions", json={}, headers=page)),
            (200, client.get("/healthz", headers=page)),
        ):
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, origin)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000", "http://127.0.0.1:8000"])
def test_reaction_of_another_page_is_refused_and_not_counted(start: Callable[..., Stage], origin: str) -> None:
    """A browser sends a form without a preflight: the reaction is refused all the same, and the refusal is counted."""
    stage = start()
    answer = stage.client.post("/reactions", json=GOOD, headers={"Host": "127.0.0.1:8000", "Origin": origin})
    assert_problem(answer, 403, repr(origin), "setting origins")
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
    assert stage.client.get("/healthz").json["accepted"] == 0
    assert 'requests_refused_total{reason="origin_not_allowed"} 1' in stage.client.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "status", "advice"),
    [
        ("GET", "/reactions", 405, "use POST /reactions"),
        ("POST", "/", 404, "use one of POST /reactions, GET /healthz, GET /openapi.json, GET /docs, GET /metrics"),
        ("POST", "/healthz", 405, "use GET /healthz"),
        ("POST", "/reactions/", 404, "use POST /reactions"),
        ("POST", "/reaction", 404, "use POST /reactions"),
        ("POST", "/clients", 404, "use POST /clients at the registry"),
    ],
)
def test_unknown_path_or_method_returns_a_problem_document(
    start: Callable[..., Stage], method: str, path: str, status: int, advice: str
) -> None:
    """404 and 405 have the same form as any other error; 405 names the allowed methods, and both the nearest route."""
    answer = start().client.open(path, method=method)
    assert_problem(answer, status, f"{method} {path!r}", advice)
    assert ("Allow" in answer.headers) is (status == 405)


def test_internal_error_returns_500_as_a_problem_document(
    start: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the code returns 500 in the same form, without its details."""
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
def test_any_body_is_accepted_or_refused(open_stage: Stage, body: bytes, content_type: str) -> None:
    """Any posted bytes get one of the documented statuses, and a refused request changes nothing."""
    before = open_stage.buffer.accepted
    answer = open_stage.post(body, content_type)
    assert answer.status_code in {202, 400, 413, 415, 422}
    if answer.status_code != 202:
        assert_problem(answer, answer.status_code)
        assert open_stage.buffer.accepted == before
