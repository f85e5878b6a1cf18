"""WebSocket and long polling: the same windows as server-sent events, and their refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from pipeline.bus.base import Record
from pipeline.bus.memory import MemoryBus
from pipeline.client import transports
from pipeline.settings import Settings
from pipeline.subscriber import app, connection, event_stream, frames, state, websocket
from pipeline.subscriber import polling as polls
from pipeline.subscriber.fanout import Fanout
from tests.pipeline.subscriber.test_fanout import publish
from tests.pipeline.subscriber.test_server import FEED, NAMES, Live, connect, prepared, run, send_request, window

TOKEN = {"Authorization": "Bearer token-x"}


@asynccontextmanager
async def socket(live: Live, query: str = "", **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open x's socket."""
    async with live.http.ws_connect(f"{live.url}/clients/x/socket{query}", headers=TOKEN | headers) as opened:
        yield opened


async def events(opened: aiohttp.ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    """Receive `count` events."""
    return [json.loads(await opened.receive_str()) for _ in range(count)]


async def polled(live: Live, query: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
    """Return the status and JSON of one poll of x."""
    async with live.http.get(f"{live.url}/clients/x/windows{query}", headers=TOKEN | headers) as answer:
        return answer.status, await answer.json(content_type=None)


def test_socket_gets_each_window_once() -> None:
    """It starts with the next window, or after the id in its query."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live) as opened:
            await live.until(lambda health: health["clients"] == 1)
            live.publish(1, 2)
            begin, *got = await events(opened, 3)
            assert (begin["id"], begin["event"]) == ("earliest", "begin")
            assert [event["id"] for event in got] == ["e:1", "e:2"]
            assert {event["event"] for event in got} == {"window"}
            assert got[0]["data"]["window"] == 1
            assert got[0]["data"]["hops"][-1]["stage"] == "subscriber-1-1"
        live.publish(3)
        async with socket(live, "?after=e:1") as opened:
            assert [event["id"] for event in await events(opened, 2)] == ["e:2", "e:3"]

    run(scenario)


def test_socket_cut_off_before_its_first_window_misses_nothing() -> None:
    """Its `begin` event has the id to resume after; the windows sent meanwhile follow."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        async with socket(live) as opened:
            (begin,) = await events(opened, 1)
            assert (begin["id"], begin["event"]) == ("e:1", "begin")
        live.publish(2)
        async with socket(live, f"?after={begin['id']}") as opened:
            assert [event["id"] for event in await events(opened, 1)] == ["e:2"]

    run(scenario)


@pytest.mark.parametrize("transport", ["sse", "websocket", "poll"])
def test_client_from_before_a_feeds_first_window_misses_none(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty feed gives the id `earliest`, from which a client can resume."""
    monkeypatch.setattr(polls, "WAIT_S", 0.01)

    async def scenario(live: Live) -> None:
        live.register("x")
        if transport == "sse":
            async with live.watch("x") as before:
                await before.greeted()
            assert before.raw == b"retry: 1000\n\nid: earliest\n\n: connected\n\n"
        elif transport == "websocket":
            async with socket(live) as opened:
                assert await events(opened, 1) == [{"id": "earliest", "event": "begin", "data": {}}]
        else:
            assert await polled(live) == (200, {"events": [], "after": "earliest"})
        live.publish(1, 2)
        await live.until(lambda health: health["last_event_id"] == "e:2")
        if transport == "sse":
            async with live.watch("x", **{"Last-Event-ID": "earliest"}) as again:
                assert await again.ids(2) == ["e:1", "e:2"]
        elif transport == "websocket":
            async with socket(live, "?after=earliest") as opened:
                assert [event["id"] for event in await events(opened, 2)] == ["e:1", "e:2"]
        else:
            _, got = await polled(live, "?after=earliest")
            assert ([event["id"] for event in got["events"]], got["after"]) == (["e:1", "e:2"], "e:2")

    run(scenario)


class EmptiedBus(MemoryBus):
    """A bus whose retention has removed all records from before the start."""

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return where the records begin that are left."""
        bounds = super().bounds(topic)
        return {number: (end, end) for number, (_, end) in bounds.items()} if topic == FEED else bounds


@pytest.mark.parametrize(("kept", "resumes_after"), [(2, "e:3"), (0, "earliest")])
def test_earliest_that_is_no_longer_kept_sends_a_reset(
    monkeypatch: pytest.MonkeyPatch, kept: int, resumes_after: str
) -> None:
    """A subscriber that starts later, with only the newest windows or none, reports the gap."""
    monkeypatch.setattr(state, "RING_MAX", 2)
    bus = MemoryBus() if kept else EmptiedBus()
    bus.ensure(NAMES.clients, NAMES.subscribers, NAMES.feed("1"), NAMES.dead_letters)
    for number in (1, 2, 3):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live, "?after=earliest") as opened:
            (reset,) = await events(opened, 1)
        assert (reset["id"], reset["event"]) == (resumes_after, "reset")
        assert reset["data"]["last_event_id"] == "earliest"
        assert "first windows are not kept" in reset["data"]["reason"]

    run(scenario, bus)


@pytest.mark.parametrize(("from_offset", "whole"), [(0, True), (3, False)])
def test_cluster_added_later_does_not_have_earliest(from_offset: int, whole: bool) -> None:
    """It never had the first windows, which clients of other clusters may have missed."""
    late = state.Subscriber(Settings(), "http://here", from_offset=from_offset)
    late.take_feed([Record(0, 0, 0, None, window(1))], 0)
    assert late.fanout.has_earliest is whole


@pytest.mark.parametrize(("last", "reason"), [("e:1", "too old"), ("gone:3", "epoch gone is not kept")])
def test_socket_gets_a_reset_for_a_gap(last: str, reason: str) -> None:
    """Resuming before the ring's oldest window, or from another epoch, gives a reset, as on the other transports."""
    bus = prepared()
    for number in (10, 11):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live, f"?after={last}") as opened:
            (reset,) = await events(opened, 1)
            assert (reset["id"], reset["event"]) == ("e:11", "reset")
            assert reason in reset["data"]["reason"]
        _, got = await polled(live, f"?after={last}")
        assert [(event["id"], event["event"]) for event in got["events"]] == [("e:11", "reset")]
        assert got["after"] == "e:11"

    run(scenario, bus, patience_s=0.1)


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        (aiohttp.WSMsgType.TEXT, b"{}", 1008),
        (aiohttp.WSMsgType.TEXT, b'{"after": "e:1"}', 1008),
        (aiohttp.WSMsgType.BINARY, b"{}", 1008),
        (aiohttp.WSMsgType.TEXT, b"", 1008),
        (aiohttp.WSMsgType.TEXT, b"x" * (websocket.MESSAGE_MAX_BYTES + 1), 1009),
        # RFC 6455, section 8.1.
        (aiohttp.WSMsgType.TEXT, b"\xff", 1007),
    ],
)
def test_message_from_a_client_closes_its_socket(kind: aiohttp.WSMsgType, message: bytes, code: int) -> None:
    """The reason names what to do instead; another client's stream continues."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("y") as y:
            await y.greeted()
            async with socket(live) as opened:
                await events(opened, 1)
                await opened.send_frame(message, kind)
                closing = await opened.receive()
                assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, code)
                if code == 1008:
                    assert closing.extra.endswith("the last id in the query, ?after=<id>")
            await live.until(lambda health: health["clients"] == 1)
            live.publish(1)
            assert await y.ids(1) == ["e:1"]

    run(scenario)


def test_deletion_closes_the_socket_with_1000() -> None:
    """The end of a registration is a regular close."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live) as opened:
            await events(opened, 1)
            live.unregister("x")
            message = await opened.receive()
            assert (message.data, message.extra) == (1000, "deleted")

    run(scenario)


@pytest.mark.parametrize(
    ("query", "headers", "status", "reason"),
    [
        ("", {"Authorization": "Bearer other"}, 403, "the token is not that of client 'x'"),
        ("?after=e", {}, 400, "after is 'e'"),
        ("?after=e:99", {}, 409, "after is 'e:99'"),
        ("?ticket=x", {}, 401, "ticket 'x' is cut off or changed"),
    ],
)
def test_refused_handshake_gives_programs_a_status_and_browsers_a_reason(
    query: str, headers: dict[str, str], status: int, reason: str
) -> None:
    """A browser hides the answer to a handshake from its page, but not the close of an open socket."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with socket(live, query, **headers):
                raise AssertionError("it was accepted")
        assert refused.value.status == status
        async with socket(live, query, Origin="http://127.0.0.1:8080", **headers) as opened:
            closing = await opened.receive()
            assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1008)
            assert closing.extra.startswith(reason)
        assert (await live.health())["clients"] == 0

    run(scenario, patience_s=0.1)


def test_full_subscriber_closes_a_browsers_socket_with_1013() -> None:
    """1013 (IANA, WebSocket Close Code Number Registry) stands for 503 with Retry-After."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("y") as y:
            await y.greeted()
            async with socket(live, Origin="http://127.0.0.1:8080") as opened:
                closing = await opened.receive()
                assert (closing.data, closing.extra[:17]) == (1013, "connections_max=1")

    run(scenario, connections_max=1)


def test_poll_waits_for_the_next_window_and_misses_none_in_between() -> None:
    """With `after`, missed windows are answered at once; without it, the poll waits for the next one."""

    async def scenario(live: Live) -> None:
        live.register("x")
        waiting = asyncio.create_task(polled(live))
        await live.until(lambda health: health["clients"] == 1)
        live.publish(1)
        status, got = await waiting
        assert (status, got["after"]) == (200, "e:1")
        live.publish(2, 3)
        await live.until(lambda health: health["last_event_id"] == "e:3")
        _, got = await polled(live, "?after=e:1")
        assert [event["id"] for event in got["events"]] == ["e:2", "e:3"]
        assert got["after"] == "e:3"
        assert (await live.health())["clients"] == 0

    run(scenario)


def test_empty_poll_answer_names_the_id_to_resume_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """No window came, and one before the next poll is not missed."""
    monkeypatch.setattr(polls, "WAIT_S", 0.05)

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        assert await polled(live) == (200, {"events": [], "after": "e:1"})

    run(scenario)


def test_clients_shortest_empty_poll_fits_the_servers_wait() -> None:
    """A poll ended by a move answers early without events: the client must recognise it."""
    assert polls.WAIT_S / 2 < transports.POLL_MIN_S < polls.WAIT_S


def test_poll_answer_holds_events_max_and_the_next_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long absence is replayed in several answers, in order."""
    monkeypatch.setattr(polls, "EVENTS_MAX", 2)

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1, 2, 3, 4)
        await live.until(lambda health: health["last_event_id"] == "e:4")
        seen, after = [], "e:1"
        while after != "e:4":
            _, got = await polled(live, f"?after={after}")
            seen += [event["id"] for event in got["events"]]
            after = got["after"]
        assert seen == ["e:2", "e:3", "e:4"]

    run(scenario)


def test_unread_answers_hold_their_places_until_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll whose client takes nothing of its answer counts as a stream; once it was cut, another gets everything."""
    monkeypatch.setattr(app, "SWEEP_S", 0.05)

    async def scenario(live: Live) -> None:
        for name in ("f", "g", "x"):
            live.register(name)
        # More than the kernel's buffers hold.
        live.publish(*range(1, 7), emoji="😂" * 50_000)
        await live.until(lambda health: health["last_event_id"] == "e:6")
        frozen = [await connect(live.port, name, path="windows?after=e:1", receive_bytes=4096) for name in ("f", "g")]
        await live.until(lambda health: health["clients"] == 2)
        status, problem = await polled(live, "?after=e:1")
        assert (status, problem["title"]) == (503, "Too many streams")
        monkeypatch.setattr(app, "STUCK_S", 0.3)
        await live.until(lambda health: health["cut_off"] == 2 and health["clients"] == 0)
        for each in frozen:
            each.close()
        status, got = await polled(live, "?after=e:1")
        assert (status, got["after"]) == (200, "e:6")

    run(scenario, connections_max=2)


def test_frozen_poll_is_cut_once_too_many_windows_wait(caplog: pytest.LogCaptureFixture) -> None:
    """As a stream is; the windows are left to its next poll."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1, 2, emoji="😂" * 100_000)
        await live.until(lambda health: health["last_event_id"] == "e:2")
        frozen = await connect(live.port, "x", path="windows?after=e:1", receive_bytes=4096)
        await live.until(lambda health: health["clients"] == 1)
        live.publish(3, 4, 5, 6)
        await live.until(lambda health: health["cut_off"] == 1 and health["clients"] == 0)
        frozen.close()
        _, got = await polled(live, "?after=e:1")
        assert [event["id"] for event in got["events"]] == [f"e:{number}" for number in range(2, 7)]

    run(scenario, client_queue_max=3)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_poll_that_reads_late_gets_everything() -> None:
    """And its connection goes on: the next poll, and a stream, on the same one."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(*range(1, 7), emoji="😂" * 50_000)
        await live.until(lambda health: health["last_event_id"] == "e:6")
        loop = asyncio.get_running_loop()
        with await connect(live.port, "x", path="windows?after=e:1", receive_bytes=4096) as late:
            raw = b""

            async def read(text: bytes, times: int = 1) -> None:
                nonlocal raw
                while raw.count(text) < times:
                    chunk = await loop.sock_recv(late, 1 << 16)
                    assert chunk, raw[-200:]
                    raw += chunk

            await live.until(lambda health: health["clients"] == 1)
            await read(b'"after":"e:6"}')
            assert raw.count(b'"event":"window"') == 5
            await live.until(lambda health: health["clients"] == 0)
            await send_request(late, "x", path="windows?after=e:5")
            await read(b'"after":"e:6"}', 2)
            await send_request(late, "x", path="stream?after=e:5")
            await live.until(lambda health: health["clients"] == 1)
            live.publish(7)
            await read(b"id: e:7")

    run(scenario)


def test_answer_is_sent_once_the_system_has_all_of_it() -> None:
    """Nothing may wait in the transport then: its place is given back. A stream that follows may wait there again."""
    steps: list[object] = []

    class Transport:
        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, _name: str) -> None:
            """There is no socket."""

        def set_write_buffer_limits(self, high: int | None = None) -> None:
            steps.append(high)

    class Answer:
        async def prepare(self, _request: object) -> None:
            steps.append("head")

        async def write_eof(self) -> None:
            steps.append("body")

    request: Any = SimpleNamespace(transport=Transport(), protocol=None)
    answer: Any = Answer()
    asyncio.run(connection.StreamConnection(request, connection.PLAIN).send(request, answer))
    assert steps == [0, "head", "body", None]


@pytest.mark.parametrize("first", ["end", "window"])
def test_ended_poll_does_not_name_a_window_it_did_not_send(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window in the same turn of the event loop as the poll's end, before or after it, is left to the next poll."""

    class Peer:
        def __init__(self, *_: object) -> None:
            pass

        async def send(self, _request: object, _response: object) -> None:
            assert len(fanout) == 0

    class Admitted:
        async def authenticate(self, _request: object) -> str:
            return "x"

        async def resume(self, _last: str, _field: str) -> tuple[int, frames.Wire]:
            return fanout.head, frames.begin_event(fanout.last_event_id or frames.EARLIEST)

        def is_registered(self, _client_id: str) -> bool:
            return True

    async def scenario() -> dict[str, Any]:
        request: Any = SimpleNamespace(query={}, headers={}, host="here")
        admitted: Any = Admitted()
        polling = asyncio.create_task(polls.serve_poll(request, fanout, admitted))
        while not len(fanout):
            await asyncio.sleep(0)
        if first == "end":
            fanout.end("x", "moved")
        publish(fanout, 2)
        fanout.end("x", "moved")
        answer: Any = await polling
        body: dict[str, Any] = json.loads(answer.body)
        return body

    monkeypatch.setattr(polls, "StreamConnection", Peer)
    fanout = Fanout(10, 10)
    publish(fanout, 1)
    assert asyncio.run(scenario()) == {"events": [], "after": "e:1"}


@pytest.mark.parametrize(("after", "status"), [("e", 400), ("e:99", 409)])
def test_poll_after_malformed_id_returns_400_and_id_of_the_future_409(after: str, status: int) -> None:
    """The problem document names the value."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        got, problem = await polled(live, f"?after={after}")
        assert got == status
        assert after in problem["detail"]

    run(scenario, patience_s=0.1)


def test_client_that_left_before_its_stream_started_is_not_logged_as_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not a fault of the server, and other clients are unaffected."""

    def gone(*_: object) -> None:
        raise ConnectionResetError("the client left before its stream started")

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("y") as y:
            await y.greeted()
            with monkeypatch.context() as broken:
                broken.setattr(event_stream, "StreamConnection", gone)
                with suppress(aiohttp.ClientError):
                    async with live.http.get(f"{live.url}/clients/x/stream", headers=TOKEN) as answer:
                        await answer.read()
            live.publish(1)
            assert await y.ids(1) == ["e:1"]

    run(scenario)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
