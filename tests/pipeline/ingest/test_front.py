"""Ingest's front: bodies that come slowly or not at all, and the same answers as Flask's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from granian.rsgi import ProtocolClosed

from pipeline import front as front_module
from pipeline.ingest.front import ReactionsFront
from tests.harness.stages.rsgi import Answer, ask, exchange
from tests.pipeline.ingest.test_app import GOOD, Stage

ORIGIN = "http://localhost:3000"
REACTION = json.dumps(GOOD).encode()


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Stage, ReactionsFront]]]:
    """Return a function that starts a stage with changed settings, and a front before it with one thread."""
    stages: list[Stage] = []

    def start_stage(**changes: Any) -> tuple[Stage, ReactionsFront]:
        stages.append(Stage(origins=ORIGIN, **changes))
        return stages[-1], ReactionsFront(stages[-1].client.application, stages[-1].reactions, threads=1)

    yield start_stage
    for stage in stages:
        stage.close()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a new event loop."""
    return asyncio.run(coroutine)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=latin-1", "text/plain", ""])
@pytest.mark.parametrize(
    "body",
    [
        REACTION,
        json.dumps([GOOD] * 3).encode(),
        json.dumps([GOOD] * 51).encode(),
        json.dumps([GOOD] * 1001).encode(),
        json.dumps({**GOOD, "user_id": 7, "emoji_type": "❤"}).encode(),
        json.dumps([GOOD, {}, 5, {**GOOD, "timestamp": "now"}]).encode(),
        b"\xef\xbb\xbf" + REACTION,
        REACTION.decode().encode("utf-16"),
        b"",
        b"{",
        b"[]",
        b" " * 300_000,
        b"\x1f\x8b\x08",
    ],
)
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_program_gets_the_answer_that_flask_gives(
    start: Callable[..., tuple[Stage, ReactionsFront]], body: bytes, content_type: str, coding: str
) -> None:
    """The status, the body, the headers, and what is accepted and counted as refused."""
    (behind, front), (plain, _) = start(), start()
    got = run(ask(front, body, content_type=content_type, content_encoding=coding))
    wanted = plain.client.post("/reactions", data=body, content_type=content_type, headers={"Content-Encoding": coding})
    headers = {name.lower(): value for name, value in wanted.headers if name.lower() != "content-length"}
    assert got == (wanted.status_code, headers, wanted.data)
    assert behind.buffer.accepted == plain.buffer.accepted
    figures = [
        [line for line in stage.client.get("/metrics").text.splitlines() if "requests_refused_total" in line]
        for stage in (behind, plain)
    ]
    assert figures[0] == figures[1]


def test_internal_error_is_answered_and_logged_as_by_flask(
    start: Callable[..., tuple[Stage, ReactionsFront]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """500 as a problem document without its details; the log has them."""
    stage, front = start()
    monkeypatch.setattr(stage.buffer, "add", lambda records: 1 / 0)
    answer = run(ask(front, REACTION))
    assert (answer.status, answer.problem["status"]) == (500, 500)
    assert b"ZeroDivision" not in answer.body
    assert "ZeroDivisionError" in caplog.text


def test_slow_body_holds_nobody(
    start: Callable[..., tuple[Stage, ReactionsFront]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred bodies stop half-way: others are answered meanwhile, and those with 408 after the deadline."""
    monkeypatch.setattr(front_module, "BODY_S", 0.5)
    stage, front = start()

    async def scene() -> tuple[list[Answer | None], list[Answer | None]]:
        never = asyncio.Event()
        slow = [asyncio.create_task(ask(front, b"{", then=never.wait)) for _ in range(100)]
        await asyncio.sleep(0)
        others = [await ask(front, REACTION), await ask(front, path="/healthz", method="GET")]
        assert not any(task.done() for task in slow)
        return others, list(await asyncio.gather(*slow))

    others, slow = run(scene())
    assert [other and other.status for other in others] == [202, 200]
    for answer in slow:
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert "within 0.5 s" in answer.problem["detail"]
    assert stage.buffer.accepted == 1
    assert 'requests_refused_total{reason="body_too_slow"} 100' in stage.client.get("/metrics").text


def test_address_has_a_limit_of_unfinished_bodies(
    start: Callable[..., tuple[Stage, ReactionsFront]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it the address gets 503, others do not; when some of its bodies have ended it may go on."""
    monkeypatch.setattr(front_module, "UNFINISHED_MAX", 2)
    _, front = start()

    async def scene() -> None:
        sent = asyncio.Event()
        slow = [asyncio.create_task(ask(front, REACTION, then=sent.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await ask(front, REACTION)
        assert refused is not None
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "2 requests from 192.0.2.1" in refused.problem["detail"]
        other = await ask(front, REACTION, address="192.0.2.2")
        without_body = await ask(front, method="GET", path="/healthz")
        sent.set()
        answers = [other, without_body, *await asyncio.gather(*slow), await ask(front, REACTION)]
        assert [answer and answer.status for answer in answers] == [202, 200, 202, 202, 202]

    run(scene())


def test_refusal_of_a_program_takes_no_thread(
    start: Callable[..., tuple[Stage, ReactionsFront]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand bodies that never end are refused at once, and started as many threads as Flask may have."""
    monkeypatch.setattr(front_module, "BODY_S", 0.05)
    monkeypatch.setattr(ReactionsFront, "by_flask", pytest.fail)
    _, front = start()

    async def scene() -> list[Answer | None]:
        never = asyncio.Event()
        return await asyncio.gather(*(ask(front, b"{", then=never.wait) for _ in range(50)))

    assert [answer and answer.status for answer in run(scene())] == [408] * 50


def test_page_gets_its_answers_through_flask(
    start: Callable[..., tuple[Stage, ReactionsFront]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the headers that let it read them, also where the front refuses; a foreign page is refused."""
    monkeypatch.setattr(front_module, "BODY_S", 0.05)
    stage, front = start()
    never = asyncio.Event()
    for status, pieces, options in (
        (202, (REACTION,), {}),
        (422, (b"{}",), {}),
        (413, (b" " * 300_000,), {}),
        (408, (b"{",), {"then": never.wait}),
    ):
        answer = run(ask(front, *pieces, origin=ORIGIN, **options))
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
    foreign = run(ask(front, REACTION, origin="http://evil.example"))
    assert foreign.status == 403
    assert stage.buffer.accepted == 1


def test_request_for_another_host_is_refused_before_its_body(
    start: Callable[..., tuple[Stage, ReactionsFront]],
) -> None:
    """Of a program and of a page, whose name leads to this machine: browsers take it for a page of ingest."""
    stage, front = start(host_names="live.example")
    never = asyncio.Event()
    for options in ({}, {"origin": "http://evil.example:8080"}, {"path": "/healthz", "method": "GET"}):
        refused = run(ask(front, b"{", host="evil.example:8000", then=never.wait, **options))
        assert (refused.status, refused.problem["title"]) == (421, "Host not allowed")
    assert stage.buffer.accepted == 0
    assert run(ask(front, REACTION, host="live.example")).status == 202


def test_body_that_is_too_large_is_dropped_or_not_read(start: Callable[..., tuple[Stage, ReactionsFront]]) -> None:
    """In pieces as whole; of one over 4 MiB nothing is read, and of one without a length no more than that."""
    stage, front = start(body_max_bytes=len(REACTION))
    piece = b" " * (1 << 20)
    for pieces, length, status, read in (
        ((REACTION[:9], REACTION[9:]), "", 202, len(REACTION)),
        ((REACTION, b" "), "", 413, len(REACTION) + 1),
        ((REACTION, b" "), None, 413, len(REACTION) + 1),
        ((piece,) * 5, None, 413, 0),
        ((piece,) * 9, "", 413, 5 << 20),
    ):
        headers = {} if length is None else {"content_length": length}
        connection = run(exchange(front, *pieces, **headers))
        assert (connection.answer.status, connection.read) == (status, read)
    assert stage.buffer.accepted == 1


def test_client_that_leaves_early_is_forgotten(start: Callable[..., tuple[Stage, ReactionsFront]]) -> None:
    """There is nobody to answer, and its place is free again."""

    async def leave() -> None:
        raise ProtocolClosed

    stage, front = start()
    assert run(ask(front, b"{", then=leave)) is None
    assert front._unfinished == {}
    assert stage.buffer.accepted == 0


def test_durable_answers_need_no_thread(start: Callable[..., tuple[Stage, ReactionsFront]]) -> None:
    """Three hundred wait at once for one acknowledgement, with one thread; one that gives up ends no other."""
    stage, front = start(ack="durable", flush_batch=300, flush_ms=60_000, rate_per_user_s=0)
    stage.kafka.answers.clear()

    async def scene() -> list[Answer | None]:
        waiting = [asyncio.create_task(ask(front, REACTION)) for _ in range(300)]
        asked = await asyncio.to_thread(stage.kafka.asked.wait, 20)
        assert asked
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        stage.kafka.answers.set()
        return list(await asyncio.gather(*waiting[1:]))

    assert {answer and answer.status for answer in run(scene())} == {202}
    assert len(stage.kafka.values) == 300


def test_durable_without_acknowledgement_is_refused_and_kept(
    start: Callable[..., tuple[Stage, ReactionsFront]],
) -> None:
    """The flush goes on: what was answered 503 is sent when Kafka answers."""
    stage, front = start(ack="durable", flush_batch=2, flush_ms=1, kafka_out_s=0.05)
    stage.kafka.answers.clear()

    async def scene() -> list[Answer | None]:
        return list(await asyncio.gather(ask(front, REACTION), ask(front, REACTION)))

    for answer in run(scene()):
        assert answer is not None
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "may count them twice" in answer.problem["detail"]
    stage.close()
    assert len(stage.kafka.values) == 2
