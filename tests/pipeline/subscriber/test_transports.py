"""WebSocket and long polling: the same windows from the same fan-out, and each refusal by its own means."""

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
from pipeline.subscriber import event_stream, frames, state, websocket
from pipeline.subscriber import polling as polls
from pipeline.subscriber.fanout import Fanout
from tests.pipeline.subscriber.test_fanout import publish
from tests.pipeline.subscriber.test_server import FEED, NAMES, Live, prepared, run, window

TOKEN = {"Authorization": "Bearer token-x"}


@asynccontextmanager
async def socket(live: Live, first: str | bytes | None = "{}") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open x's socket and send its first message."""
    async with live.http.ws_connect(f"{live.url}/clients/x/socket", headers=TOKEN) as opened:
        if isinstance(first, str):
            await opened.send_str(first)
        elif first is not None:
            await opened.send_bytes(first)
        yield opened


async def events(opened: aiohttp.ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    """Receive `count` events."""
    return [json.loads(await opened.receive_str()) for _ in range(count)]


async def polled(live: Live, query: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
    """The status and JSON of one poll of x."""
    async with live.http.get(f"{live.url}/clients/x/windows{query}", headers=TOKEN | headers) as answer:
        return answer.status, await answer.json(content_type=None)


def test_a_socket_gets_each_window_once() -> None:
    """From now on, or after the id that its first message names."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live) as opened:
            await live.until(lambda health: health["clients"] == 1)
            live.publish(1, 2)
            begin, *got = await events(opened, 3)
            assert (begin["id"], begin["event"]) == ("earliest", "begin")
            assert [one["id"] for one in got] == ["e:1", "e:2"]
            assert {one["event"] for one in got} == {"window"}
            assert got[0]["data"]["window"] == 1
            assert got[0]["data"]["hops"][-1]["stage"] == "subscriber-1-1"
        live.publish(3)
        async with socket(live, '{"after": "e:1"}') as opened:
            assert [one["id"] for one in await events(opened, 2)] == ["e:2", "e:3"]

    run(scenario)


def test_a_socket_cut_off_before_its_first_window_misses_nothing() -> None:
    """It is told where it begins; what came while it was away follows on that."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        async with socket(live) as opened:
            (begin,) = await events(opened, 1)
            assert (begin["id"], begin["event"]) == ("e:1", "begin")
        live.publish(2)
        async with socket(live, json.dumps({"after": begin["id"]})) as opened:
            assert [one["id"] for one in await events(opened, 1)] == ["e:2"]

    run(scenario)


@pytest.mark.parametrize("transport", ["sse", "websocket", "poll"])
def test_who_was_there_before_the_first_window_ever_misses_none(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even an empty feed has a beginning to go on from."""
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
            async with socket(live, '{"after": "earliest"}') as opened:
                assert [one["id"] for one in await events(opened, 2)] == ["e:1", "e:2"]
        else:
            _, got = await polled(live, "?after=earliest")
            assert ([one["id"] for one in got["events"]], got["after"]) == (["e:1", "e:2"], "e:2")

    run(scenario)


class Emptied(MemoryBus):
    """A bus whose retention has removed every record there was at the start."""

    def tail(self, topic: str, count: int) -> list[Record]:
        """Return what is left."""
        return [] if topic == FEED else super().tail(topic, count)


@pytest.mark.parametrize(("kept", "resumes_after"), [(2, "e:3"), (0, "earliest")])
def test_a_beginning_that_is_no_longer_kept_is_a_gap(
    monkeypatch: pytest.MonkeyPatch, kept: int, resumes_after: str
) -> None:
    """A subscriber that starts later, with the newest windows alone or none, says so."""
    monkeypatch.setattr(state, "RING_MAX", 2)
    bus = MemoryBus() if kept else Emptied()
    bus.ensure(NAMES.clients, NAMES.subscribers, NAMES.feed("1"))
    for number in (1, 2, 3):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live, '{"after": "earliest"}') as opened:
            (reset,) = await events(opened, 1)
        assert (reset["id"], reset["event"]) == (resumes_after, "reset")
        assert reset["data"]["last_event_id"] == "earliest"
        assert "first windows are not kept" in reset["data"]["reason"]

    run(scenario, bus)


@pytest.mark.parametrize(("from_offset", "whole"), [(0, True), (3, False)])
def test_only_who_reads_from_the_first_window_there_was_has_the_beginning(from_offset: int, whole: bool) -> None:
    """A cluster that was added later never saw what clients of the others may have missed."""
    late = state.Subscriber(Settings(), "http://here", from_offset=from_offset)
    late.take_feed([Record(0, 0, 0, None, window(1))], 0)
    assert late.fanout.has_earliest is whole


def test_a_socket_is_told_of_a_gap() -> None:
    """What is out of the ring comes as a reset, as on the other transports."""
    bus = prepared()
    for number in (10, 11):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live, '{"after": "e:1"}') as opened:
            (reset,) = await events(opened, 1)
            assert (reset["id"], reset["event"]) == ("e:11", "reset")
            assert "too old" in reset["data"]["reason"]

    run(scenario, bus)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("nonsense", 1008),
        ('{"after": 3}', 1008),
        ('{"before": "e:1"}', 1008),
        ('{"after": "e"}', 1008),
        ('{"after": "other:1"}', 1008),
        (b"{}", 1008),
        ("x" * (websocket.MESSAGE_MAX_BYTES + 1), 1009),
    ],
)
def test_a_first_message_that_will_not_do_closes_the_socket(first: str | bytes, code: int) -> None:
    """With the code that RFC 6455 has for it; another client's stream goes on."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("y") as y:
            await y.greeted()
            async with socket(live, first) as opened:
                message = await opened.receive()
                assert message.type is aiohttp.WSMsgType.CLOSE
                assert message.data == code
            await live.until(lambda health: health["clients"] == 1)
            live.publish(1)
            assert await y.ids(1) == ["e:1"]

    run(scenario, patience_s=0.1)


def test_a_socket_that_sends_what_is_not_utf_8_is_closed() -> None:
    """1007, as RFC 6455 has it (section 8.1)."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.http.ws_connect(f"{live.url}/clients/x/socket", headers=TOKEN) as opened:
            await opened.send_frame(b'{"after": "\xff:1"}', aiohttp.WSMsgType.TEXT)
            assert (await opened.receive()).data == 1007

    run(scenario)


def test_a_second_message_and_a_deleted_client_close_the_socket() -> None:
    """A client sends one message; a registration's end is a regular close."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with socket(live) as opened:
            await events(opened, 1)
            await opened.send_str("{}")
            assert (await opened.receive()).data == 1008
        async with socket(live) as opened:
            await events(opened, 1)
            live.unregister("x")
            message = await opened.receive()
            assert (message.data, message.extra) == (1000, "deleted")

    run(scenario)


def test_a_poll_waits_for_the_next_window_and_none_is_missed_between_two() -> None:
    """What came since `after` is answered at once; without it the next one is waited for."""

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
        assert [one["id"] for one in got["events"]] == ["e:2", "e:3"]
        assert got["after"] == "e:3"
        assert (await live.health())["clients"] == 0

    run(scenario)


def test_a_poll_in_vain_says_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing came, and what comes before the next poll is not missed."""
    monkeypatch.setattr(polls, "WAIT_S", 0.05)

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        assert await polled(live) == (200, {"events": [], "after": "e:1"})

    run(scenario)


def test_an_answer_that_comes_early_is_an_end_to_our_client() -> None:
    """A poll that a move has ended says nothing and comes before its time: the client has to take that for the end."""
    assert polls.WAIT_S / 2 < transports.POLL_MIN_S < polls.WAIT_S


def test_an_answer_holds_so_many_events_and_the_next_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long absence comes back in several answers, in order."""
    monkeypatch.setattr(polls, "EVENTS_MAX", 2)

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1, 2, 3, 4)
        await live.until(lambda health: health["last_event_id"] == "e:4")
        seen, after = [], "e:1"
        while after != "e:4":
            _, got = await polled(live, f"?after={after}")
            seen += [one["id"] for one in got["events"]]
            after = got["after"]
        assert seen == ["e:2", "e:3", "e:4"]

    run(scenario)


def test_a_poll_that_is_ended_names_no_window_that_it_did_not_give() -> None:
    """What comes in the same turn of the loop as its end is left to the next one."""

    class Admitted:
        async def authenticate(self, _request: object) -> str:
            return "x"

        async def resume(self, _last: str, _field: str) -> tuple[int, frames.Wire]:
            return fanout.head, frames.begin_event(fanout.last_event_id or frames.EARLIEST)

        def is_registered(self, _client_id: str) -> bool:
            return True

    async def scenario() -> dict[str, Any]:
        asked: Any = SimpleNamespace(query={}, headers={}, host="here")
        admitted: Any = Admitted()
        polling = asyncio.create_task(polls.serve_poll(asked, fanout, admitted))
        while not len(fanout):
            await asyncio.sleep(0)
        fanout.end("x", "moved")
        publish(fanout, 2)
        answer: Any = await polling
        said: dict[str, Any] = json.loads(answer.body)
        return said

    fanout = Fanout(10, 10)
    publish(fanout, 1)
    assert asyncio.run(scenario()) == {"events": [], "after": "e:1"}


@pytest.mark.parametrize(("after", "status"), [("e", 400), ("other:1", 409), ("e:99", 409)])
def test_a_poll_after_what_never_was_is_refused(after: str, status: int) -> None:
    """With a problem document that names the value."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        got, problem = await polled(live, f"?after={after}")
        assert got == status
        assert after in problem["detail"]

    run(scenario, patience_s=0.1)


def test_a_client_that_left_before_its_stream_began_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not logged as a fault of the server, and nobody else notices."""

    def gone(*_: object) -> None:
        raise ConnectionResetError("the client left before its stream began")

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
