"""The subscriber over real sockets, its topics in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_hex
from typing import Any, cast

import aiohttp
import msgspec
import pytest

from pipeline import lifecycle
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.cluster_routes import join
from pipeline.dead_letters import kept
from pipeline.messages import (
    ClusterRoute,
    Hop,
    Registration,
    TypeCount,
    Window,
    decode_announcement,
    decode_window,
    encode,
)
from pipeline.settings import Settings
from pipeline.sse import SseEvent, SseParser
from pipeline.subscriber import app
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.process import fastest_loop
from pipeline.subscriber.server import serve
from pipeline.subscriber.state import RING_MAX, Subscriber
from pipeline.tickets import issue
from pipeline.tokens import token_sha256
from pipeline.turns import Turns
from tests.harness.waiting import until, until_async

NAMES = topics(Settings())
FEED = NAMES.feed("1").name
DEADLINE_S = 30


class Live:
    """A running subscriber, and methods that play the stages before it."""

    def __init__(self, bus: MemoryBus, port: int) -> None:
        self.bus, self.port = bus, port
        self.url = f"http://127.0.0.1:{port}"
        self.writer = bus.writer()
        self.http = aiohttp.ClientSession()

    def publish(self, *numbers: int, epoch: str = "e", emoji: str = "😂") -> None:
        """Put windows into the feed."""
        for number in numbers:
            self.writer.send(FEED, window(number, epoch, emoji))

    def register(self, client_id: str, cluster: str = "1", subscriber: str = "1") -> None:
        """Put a registration into the topic; the token of `x` is `token-x`."""
        record = Registration(client_id, token_sha256(f"token-{client_id}"), cluster, subscriber, 1)
        self.writer.send(NAMES.clients.name, encode(record), client_id.encode())

    def unregister(self, client_id: str) -> None:
        """Put a tombstone into the topic."""
        self.writer.send(NAMES.clients.name, None, client_id.encode())

    async def health(self) -> dict[str, Any]:
        """Return the answer of /healthz."""
        async with self.http.get(f"{self.url}/healthz") as answer:
            return await answer.json()  # type: ignore[no-any-return]

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until /healthz satisfies `condition`."""

        async def satisfied() -> bool:
            return condition(await self.health())

        await until_async(satisfied, "/healthz has what is awaited")

    @asynccontextmanager
    async def watch(self, client_id: str, query: str = "", **headers: str) -> AsyncIterator[Watcher]:
        """Open a client's stream."""
        headers = {"Authorization": f"Bearer token-{client_id}", **headers}
        async with self.http.get(f"{self.url}/clients/{client_id}/stream{query}", headers=headers) as answer:
            yield Watcher(answer)

    async def refusal(self, client_id: str, query: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        """Return the status and problem document of a refused stream."""
        async with self.http.get(f"{self.url}/clients/{client_id}/stream{query}", headers=headers) as answer:
            assert answer.content_type == "application/problem+json", answer.status
            return answer.status, await answer.json(content_type=None)


class Watcher:
    """One client's open stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.raw = b""
        self._parser = SseParser()
        self._events: list[SseEvent] = []

    async def greeted(self) -> None:
        """Wait for the stream's first comment: nothing can refuse the stream any more."""
        while b": connected\n\n" not in self.raw:
            await self._more()

    async def next(self) -> SseEvent:
        """Return the next event."""
        while not self._events:
            assert await self._more(), "the stream ended"
        return self._events.pop(0)

    async def ids(self, count: int) -> list[str]:
        """Return the ids of the next `count` events."""
        return [(await self.next()).id for _ in range(count)]

    async def ended(self) -> list[SseEvent]:
        """Wait for the end; return the events before it."""
        while await self._more():
            pass
        return self._events

    async def _more(self) -> bool:
        chunk = await self.answer.content.readany()
        self.raw += chunk
        self._events += self._parser.feed(chunk)
        return bool(chunk)


def window(number: int, epoch: str = "e", emoji: str = "😂") -> bytes:
    """Return a window as the cluster publisher sends it."""
    hops = (Hop("main-publisher", 1, 2, 3), Hop("cluster-publisher-1", 4, 5, 6))
    offsets = {"emoji-events-0": (number, number)}
    return encode(Window(epoch, number, 0, 0, offsets, 38, [TypeCount(emoji, 38, 4)], hops=hops))


def prepared() -> MemoryBus:
    """Return a bus with the topics that a subscriber needs."""
    bus = MemoryBus()
    bus.ensure(NAMES.clients, NAMES.subscribers, NAMES.feed("1"), NAMES.dead_letters)
    return bus


def run(
    scenario: Callable[[Live], Any], bus: MemoryBus | None = None, patience_s: float = 1000, **changes: object
) -> None:
    """Run `scenario` against a subscriber of its own; check that it stops cleanly."""

    async def everything() -> None:
        topics_in_memory = bus or prepared()
        port = lifecycle.claim_port("127.0.0.1", 0, "subscriber_port")
        stop = threading.Event()
        values = Settings().replace(**changes)
        server = asyncio.create_task(serve(values, port, topics_in_memory, topics_in_memory, stop, patience_s))
        live = Live(topics_in_memory, port)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not topics_in_memory.tail(NAMES.subscribers.name, 1):
                    assert not server.done(), await server
                    await asyncio.sleep(0.005)
                await scenario(live)
        finally:
            stop.set()
            await server
            await live.http.close()

    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(everything())


def test_window_reaches_every_client_with_every_hop() -> None:
    """The event is complete, and this subscriber's own stamp is the last."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("x") as x, live.watch("y") as y:
            assert x.answer.content_type == "text/event-stream"
            await live.until(lambda health: health["clients"] == 2)
            live.publish(17)
            event = await x.next()
            assert await y.next() == event
            assert x.raw.startswith(b"retry: 1000\n\nid: earliest\n\n: connected\n\n")
        assert (event.id, event.event, event.retry_ms) == ("e:17", "window", 1000)
        got = decode_window(event.data.encode())
        assert got.reactions == [TypeCount("😂", 38, 4)]
        assert [hop.stage for hop in got.hops] == ["main-publisher", "cluster-publisher-1", "subscriber-1-1"]
        own = got.hops[-1]
        assert own.offset == 0
        assert 0 < own.received_ns <= own.sent_ns

    run(scenario)


def test_new_client_starts_now_and_resuming_client_gets_what_it_missed() -> None:
    """A new client starts with the next window; one that sends an id gets the windows after it, once and in order."""
    bus = prepared()
    for number in range(5):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("new")
        live.register("old")
        async with live.watch("new") as new, live.watch("old", **{"Last-Event-ID": "e:1"}) as old:
            assert await old.ids(3) == ["e:2", "e:3", "e:4"]
            await live.until(lambda health: health["clients"] == 2)
            live.publish(5)
            assert await new.ids(1) == await old.ids(1) == ["e:5"]

    run(scenario, bus)


@pytest.mark.parametrize(
    ("headers", "first"),
    [({}, "e:2"), ({"Last-Event-ID": ""}, "e:2"), ({"Last-Event-ID": "e:3"}, "e:4")],
    ids=["no header", "empty header", "header"],
)
def test_query_has_the_id_to_resume_after_until_the_header_has_one(headers: dict[str, str], first: str) -> None:
    """A page's EventSource cannot set the header; when it comes back the header is newer than the query."""
    bus = prepared()
    for number in range(5):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x", "?after=e:1", **headers) as x:
            assert await x.ids(1) == [first]
        status, problem = await live.refusal("x", "?after=what", Authorization="Bearer token-x")
        assert (status, problem["title"]) == (400, "Malformed event id")

    run(scenario, bus)


@pytest.mark.parametrize(("last", "reason"), [("e:1", "too old"), ("gone:3", "epoch gone is not kept")])
def test_resuming_from_an_id_that_is_not_kept_sends_a_reset(last: str, reason: str) -> None:
    """A reset event names the reason and where the stream continues; then it continues there.

    An EventSource never comes back after a refusal: for one that was away while its epoch left the ring, too.
    """
    bus = prepared()
    for number in (10, 11):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x", **{"Last-Event-ID": last}) as x:
            event = await x.next()
            assert (event.id, event.event) == ("e:11", "reset")
            assert reason in json.loads(event.data)["reason"]
            live.publish(12)
            assert await x.ids(1) == ["e:12"]

    run(scenario, bus, patience_s=0.1)


@pytest.mark.parametrize(("last", "reason"), [("e:99", "beyond the newest, 11"), ("e:12", "beyond the newest, 11")])
def test_event_id_of_the_future_returns_409(last: str, reason: str) -> None:
    """It is refused with the remedy: this feed has not given it."""
    bus = prepared()
    for number in (10, 11):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        headers = {"Authorization": "Bearer token-x", "Last-Event-ID": last}
        status, problem = await live.refusal("x", **headers)
        assert status == 409
        assert reason in problem["detail"]
        assert "connect without it" in problem["detail"]

    run(scenario, bus, patience_s=0.1)


def test_duplicate_and_unreadable_windows_are_skipped() -> None:
    """A repeated record and an unreadable one are skipped; a new epoch starts over."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x") as x:
            await live.until(lambda health: health["clients"] == 1)
            live.publish(1, 2, 1, 2)
            live.writer.send(FEED, b"nonsense")
            live.writer.send(FEED, None)
            live.publish(3)
            live.publish(0, epoch="f")
            assert await x.ids(4) == ["e:1", "e:2", "e:3", "f:0"]

    run(scenario)


def test_missing_token_returns_401_and_wrong_token_403() -> None:
    """A token in the query counts as missing; the cookie is as good as the header."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        assert (await live.refusal("x"))[0] == 401
        assert (await live.refusal("x", Authorization="Basic token-x"))[0] == 401
        assert (await live.refusal("x", "?token=token-x&access_token=token-x"))[0] == 401
        assert (await live.refusal("x", Authorization="Bearer token-y"))[0] == 403
        assert (await live.refusal("x", Cookie="emostream_token=token-y"))[0] == 403
        assert (await live.refusal("x", Authorization="Bearer ü"))[0] == 403
        async with live.http.get(
            f"{live.url}/clients/x/stream", headers={"Cookie": "emostream_token=token-x"}
        ) as answer:
            assert answer.status == 200

    run(scenario)


def ticket(client_id: str, subscriber: str = "1/1", age_s: float = 0) -> str:
    """Return a ticket as the registry issues it."""
    now_ns = time.time_ns() - int(age_s * 1e9)
    return issue(token_sha256(f"token-{client_id}"), client_id, subscriber, now_ns, token_hex(8))


@pytest.mark.parametrize("path", ["stream", "windows?after=earliest", "socket"])
def test_ticket_opens_one_connection(path: str) -> None:
    """It needs neither header nor cookie. Used again, it is refused, and the open stream continues."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.publish(1)
        await live.until(lambda health: health["last_event_id"] == "e:1")
        url = f"{live.url}/clients/x/{path}{'&' if '?' in path else '?'}ticket={ticket('x')}"
        opening = live.http.ws_connect(url) if path == "socket" else live.http.get(url)
        async with opening as opened:
            if path == "socket":
                assert json.loads(await opened.receive_str())["id"] == "e:1"
            else:
                assert opened.status == 200
            async with live.http.get(url.replace("socket", "stream")) as again:
                assert again.status == 401
                assert "ticket was used before" in (await again.json(content_type=None))["detail"]
            assert (await live.health())["clients"] == (path != "windows?after=earliest")

    run(scenario)


def test_refused_ticket_names_the_reason_and_affects_nobody() -> None:
    """Used, expired, another client's, another subscriber's, malformed; each ticket stays valid where it belongs."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        for_y = ticket("y")
        async with live.watch("x") as x:
            await x.greeted()
            for text, status, title in (
                (ticket("x", age_s=10.5), 401, "Ticket expired"),
                (for_y, 403, "Another client's ticket"),
                (ticket("x", "1/2"), 403, "Another subscriber's ticket"),
                (ticket("x")[:-1], 401, "Malformed ticket"),
                ("", 401, "Malformed ticket"),
                ("token-x", 401, "Malformed ticket"),
            ):
                got, problem = await live.refusal("x", f"?ticket={text}")
                assert (got, problem["title"]) == (status, title)
            live.publish(1)
            assert await x.ids(1) == ["e:1"]
        async with live.http.get(f"{live.url}/clients/y/stream?ticket={for_y}") as answer:
            assert answer.status == 200

    run(scenario)


def test_ticket_decides_before_header_and_cookie() -> None:
    """A library that keeps the header at a redirect is admitted by the ticket; the last of several tickets counts."""

    async def scenario(live: Live) -> None:
        live.register("x")
        wrong = {"Authorization": "Bearer wrong", "Cookie": "emostream_token=wrong"}
        query = f"?ticket=old&after=earliest&ticket={ticket('x')}"
        async with live.http.get(f"{live.url}/clients/x/stream{query}", headers=wrong) as answer:
            assert answer.status == 200
        assert (await live.refusal("x", "?ticket=old", Authorization="Bearer token-x"))[0] == 401

    run(scenario)


def test_ticket_of_a_deleted_client_opens_nothing() -> None:
    """404, or 204 for an EventSource that would reconnect without end."""

    async def scenario(live: Live) -> None:
        status, problem = await live.refusal("x", f"?ticket={ticket('x')}")
        assert (status, problem["title"]) == (404, "No such client")
        event_source = {"Accept": "text/event-stream", "Last-Event-ID": "e:1"}
        url = f"{live.url}/clients/x/stream?ticket={ticket('x')}"
        async with live.http.get(url, headers=event_source) as answer:
            assert answer.status == 204

    run(scenario, patience_s=0.1)


def test_missing_token_is_explained() -> None:
    """The usual cause is a library that dropped the token at the redirect."""

    async def scenario(live: Live) -> None:
        live.register("x")
        status, problem = await live.refusal("x")
        assert status == 401
        assert "HTTP libraries drop Authorization at a redirect" in problem["detail"]
        assert "open the stream_url" in problem["detail"]

    run(scenario)


def test_unknown_client_returns_404_and_malformed_id_400() -> None:
    """The 404 comes when patience ends."""

    async def scenario(live: Live) -> None:
        status, document = await live.refusal("nobody", Authorization="Bearer t")
        assert (status, "nobody" in document["detail"]) == (404, True)
        live.register("x")
        await live.until(lambda health: health["registered"] == 1)
        headers = {"Authorization": "Bearer token-x", "Last-Event-ID": "what?"}
        status, document = await live.refusal("x", **headers)
        assert (status, "what?" in document["detail"]) == (400, True)
        assert (await live.health())["clients"] == 0

    run(scenario, patience_s=0.1)


def test_client_before_its_registration_is_waited_for() -> None:
    """The registry answers as soon as Kafka has the record; this subscriber may read that record later."""

    async def scenario(live: Live) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, live.register, "x")
        async with live.watch("x") as x:
            assert x.answer.status == 200

    run(scenario)


def test_deleted_clients_stream_ends() -> None:
    """It ends properly, the client cannot return, and other streams stay."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("x") as x, live.watch("y") as y:
            await live.until(lambda health: health["clients"] == 2)
            live.writer.send(NAMES.clients.name, None, b"x")
            assert await x.ended() == []
            live.publish(1)
            assert await y.ids(1) == ["e:1"]
            assert (await live.refusal("x", Authorization="Bearer token-x"))[0] == 404

    run(scenario, patience_s=0.1)


def test_beyond_connections_max_returns_503_until_a_client_leaves() -> None:
    """A refused client gets Retry-After instead of a hang; after another client leaves, it gets in."""

    async def scenario(live: Live) -> None:
        for name in "xyz":
            live.register(name)
        async with live.watch("x"):
            async with (
                live.watch("y"),
                live.http.get(f"{live.url}/clients/z/stream", headers={"Authorization": "Bearer token-z"}) as answer,
            ):
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) > 0
                assert "connections_max=2" in (await answer.json(content_type=None))["detail"]
            await live.until(lambda health: health["clients"] == 1)
            async with live.watch("z") as z:
                assert z.answer.status == 200

    run(scenario, connections_max=2)


def test_client_that_does_not_read_is_cut_off_alone() -> None:
    """When its queue is full, its connection is reset; a reading client has every window, in order."""

    async def scenario(live: Live) -> None:
        live.register("frozen")
        live.register("x")
        frozen = await connect(live.port, "frozen", receive_bytes=4096)
        async with live.watch("x") as x:
            await live.until(lambda health: health["clients"] == 2)
            expected = []
            number = 0
            while (await live.health())["cut_off"] == 0:
                live.publish(number, emoji="😂" * 50_000)
                expected.append(f"e:{number}")
                assert await x.ids(1) == expected[-1:]
                number += 1
            await live.until(lambda health: health["clients"] == 1)
            live.publish(number)
            assert await x.ids(1) == [f"e:{number}"]
        frozen.close()

    run(scenario, client_queue_max=3)


def test_client_that_reads_late_gets_everything_in_order() -> None:
    """The windows that a connection does not take at once wait, and follow as soon as its client reads."""

    async def scenario(live: Live) -> None:
        live.register("late")
        late = await connect(live.port, "late")
        await live.until(lambda health: health["clients"] == 1)
        # 40 MB: more than the kernel's buffers hold.
        live.publish(*range(50), emoji="😂" * 200_000)
        await live.until(lambda health: health["feed_offset"] == 49)
        loop, parser, ids = asyncio.get_running_loop(), SseParser(), []
        with late:
            # The parser skips the response's head and the chunks' framing as unknown fields.
            while len(ids) < 50:
                chunk = await loop.sock_recv(late, 1 << 20)
                assert chunk, "the stream ended"
                ids += [event.id for event in parser.feed(chunk)]
        assert ids == [f"e:{n}" for n in range(50)]

    run(scenario, client_queue_max=100)


def test_client_that_sends_bytes_on_its_stream_is_cut_off_alone() -> None:
    """The connection ends at the first byte: the bytes are not kept for a request that is never served."""

    async def scenario(live: Live) -> None:
        live.register("loud")
        live.register("x")
        loop = asyncio.get_running_loop()
        loud = await connect(live.port, "loud")
        async with live.watch("x") as x:
            await live.until(lambda health: health["clients"] == 2)
            await loop.sock_sendall(loud, b"\xff\0nonsense\r\n\r\n")
            await live.until(lambda health: health["clients"] == 1)
            live.publish(1)
            assert await x.ids(1) == ["e:1"]
        loud.close()

    run(scenario)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0"], ids=["nothing", "half a head"])
def test_connection_without_a_whole_request_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that stays open after an answer; a stream is not."""
    monkeypatch.setattr("pipeline.subscriber.server.SILENT_S", 0.2)

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x") as x:
            await x.greeted()
            loop = asyncio.get_running_loop()
            with socket.socket() as silent:
                silent.setblocking(False)
                await loop.sock_connect(silent, ("127.0.0.1", live.port))
                await loop.sock_sendall(silent, sent)
                assert await loop.sock_recv(silent, 1) == b""
            live.publish(1)
            assert await x.ids(1) == ["e:1"]

    run(scenario)


def test_http_1_0_gets_the_same_events_unchunked() -> None:
    """A proxy that speaks HTTP/1.0 still works."""

    async def scenario(live: Live) -> None:
        live.register("x")
        old = await connect(live.port, "x", version="1.0")
        await live.until(lambda health: health["clients"] == 1)
        live.publish(1)
        loop, raw = asyncio.get_running_loop(), b""
        while b"\n\nid: e:1\nevent: window\n" not in raw:
            chunk = await loop.sock_recv(old, 65536)
            assert chunk, raw
            raw += chunk
        assert b"chunked" not in raw
        old.close()

    run(scenario)


def test_second_connection_of_a_client_ends_the_first() -> None:
    """The first may be half open: it ends, and the second gets the windows."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x") as first, live.watch("x") as second:
            assert await first.ended() == []
            live.publish(1)
            assert await second.ids(1) == ["e:1"]

    run(scenario)


def test_heartbeats_arrive_between_windows() -> None:
    """A comment arrives every heartbeat_s, and is not an event."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x") as x:
            while x.raw.count(b": heartbeat\n\n") < 3:
                assert await x._more()
            live.publish(1)
            assert await x.ids(1) == ["e:1"]

    run(scenario, heartbeat_s=0.05)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "http://localhost:3000"])
def test_allowed_page_gets_cors_headers(origin: str) -> None:
    """The registry's page and a listed one may read the stream, the answer to a preflight and every refusal."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x", Origin=origin) as x:
            assert x.answer.headers["Access-Control-Allow-Credentials"] == "true"
            answers = [x.answer]
            for method, path, status in (
                ("OPTIONS", "/clients/x/stream", 204),
                ("GET", "/clients/x/stream", 401),
                ("GET", "/clients/x/windows", 401),
                ("GET", "/nowhere", 404),
                ("POST", "/healthz", 405),
                ("GET", "/healthz", 200),
                ("GET", "/metrics", 200),
            ):
                async with live.http.request(method, live.url + path, headers={"Origin": origin}) as answer:
                    assert answer.status == status
                    answers.append(answer)
        for answer in answers:
            assert answer.headers.getall("Access-Control-Allow-Origin") == [origin]
            assert answer.headers.getall("Vary") == ["Origin"]
        assert "Last-Event-ID" in answers[1].headers["Access-Control-Allow-Headers"]

    run(scenario, origins="http://localhost:3000")


def test_request_for_another_host_opens_no_stream() -> None:
    """421 with the setting's name, though the token is right; a listed name opens it."""

    async def scenario(live: Live) -> None:
        live.register("x")
        for path in ("stream", "socket", "windows"):
            headers = {"Authorization": "Bearer token-x", "Host": "evil.example", "Origin": "http://evil.example:8080"}
            async with live.http.get(f"{live.url}/clients/x/{path}", headers=headers) as answer:
                assert (answer.status, answer.content_type) == (421, "application/problem+json")
                assert "setting host_names" in (await answer.json(content_type=None))["detail"]
                assert "Access-Control-Allow-Origin" not in answer.headers
        async with live.watch("x", Host="live.example") as x:
            await x.greeted()

    run(scenario, host_names="live.example")


@pytest.mark.parametrize(
    "origins",
    [["http://evil.example"], ["null"], ["http://["], ["http://127.0.0.1:3000"], ["http://127.0.0.1:8080"] * 2],
)
def test_another_page_opens_no_stream(origins: list[str]) -> None:
    """403 with the setting's name, though the token is right; the client's open stream goes on."""

    async def scenario(live: Live) -> None:
        live.register("x")
        headers = [("Authorization", "Bearer token-x"), *(("Origin", origin) for origin in origins)]
        async with live.watch("x") as x:
            await x.greeted()
            for method, path in (("GET", "stream"), ("GET", "socket"), ("GET", "windows"), ("OPTIONS", "stream")):
                async with live.http.request(method, f"{live.url}/clients/x/{path}", headers=headers) as answer:
                    assert (answer.status, answer.content_type) == (403, "application/problem+json")
                    assert "setting origins" in (await answer.json(content_type=None))["detail"]
                    assert "Access-Control-Allow-Origin" not in answer.headers
            live.publish(1)
            assert await x.ids(1) == ["e:1"]

    run(scenario)


@pytest.mark.parametrize(
    ("path", "headers", "status", "detail"),
    [
        ("stream", {}, 401, "stream_url"),
        ("socket", {"Authorization": "Bearer token-x"}, 426, "takes the handshake of a WebSocket only"),
        ("windows?after=e", {"Authorization": "Bearer token-x"}, 400, "after"),
        ("nothing", {}, 404, "clients register at the registry"),
    ],
)
def test_refusals_are_problem_documents_with_cors_headers(
    path: str, headers: dict[str, str], status: int, detail: str
) -> None:
    """The page can read why it was refused, whichever layer refuses."""

    async def scenario(live: Live) -> None:
        live.register("x")
        headers["Origin"] = "http://127.0.0.1:8080"
        async with live.http.get(f"{live.url}/clients/x/{path}", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
            assert answer.headers["Access-Control-Allow-Origin"] == "http://127.0.0.1:8080"
            problem = await answer.json(content_type=None)
            assert problem["status"] == status
            assert detail in problem["detail"]

    run(scenario)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/clients/x/stream", 405)])
def test_unknown_path_returns_404_and_wrong_method_405(method: str, path: str, status: int) -> None:
    """The framework's own refusals are problem documents too."""

    async def scenario(live: Live) -> None:
        async with live.http.request(method, live.url + path) as answer:
            assert (answer.status, answer.content_type) == (status, "application/problem+json")

    run(scenario)


def test_subscriber_announces_its_load_and_leaves_with_a_tombstone() -> None:
    """The announcement counts every client, and the streams end cleanly."""
    bus = prepared()
    ends: list[asyncio.Task[list[SseEvent]]] = []

    async def scenario(live: Live) -> None:
        live.register("x")
        answer = await live.http.get(f"{live.url}/clients/x/stream", headers={"Authorization": "Bearer token-x"})
        await live.until(lambda health: health["clients"] == 1)
        live.publish(4)
        assert await Watcher(answer).ids(1) == ["e:4"]
        while True:
            record = bus.tail(NAMES.subscribers.name, 1)[0]
            announcement = decode_announcement(record.value)
            if announcement.clients == 1 and announcement.last_event_id == "e:4":
                break
            await asyncio.sleep(0.01)
        assert (record.key, announcement.url) == (b"1/1", live.url)
        ends.append(asyncio.create_task(Watcher(answer).ended()))
        # Let the task start to read; `run` then stops the subscriber.
        await asyncio.sleep(0)

    run(scenario, bus)
    assert bus.tail(NAMES.subscribers.name, 1)[0].value is None
    assert ends[0].done()
    assert ends[0].result() == []


@pytest.mark.parametrize("assignment", [("1", "2"), ("2", "1")])
def test_stream_of_a_reassigned_client_ends(assignment: tuple[str, str]) -> None:
    """It ends after all windows sent so far; other streams continue, and the client may return."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("x") as x, live.watch("y") as y:
            await live.until(lambda health: health["clients"] == 2)
            live.publish(1)
            assert await x.ids(1) == await y.ids(1) == ["e:1"]
            live.register("y")
            live.register("x", *assignment)
            assert await x.ended() == []
            live.publish(2)
            assert await y.ids(1) == ["e:2"]
        async with live.watch("x", **{"Last-Event-ID": "e:1"}) as again:
            assert await again.ids(1) == ["e:2"]

    run(scenario)


def test_windows_before_a_clusters_gap_are_not_replayed() -> None:
    """A cluster that was removed and added again starts over: a client from before gets a reset."""
    bus = prepared()
    bus.ensure(NAMES.aggregates)
    writer = bus.writer()
    for number in (1, 2):
        writer.send(FEED, window(number))
    # Those windows' first hop names offset 1.
    for _ in range(2):
        writer.send(NAMES.aggregates.name, b"")
    join(bus, NAMES, ["1"])

    async def scenario(live: Live) -> None:
        live.register("x")
        later = decode_window(window(9))
        first, *others = later.hops
        hops = (msgspec.structs.replace(first, offset=2), *others)
        live.writer.send(FEED, encode(msgspec.structs.replace(later, hops=hops)))
        await live.until(lambda health: health["last_event_id"] == "e:9")
        async with live.watch("x", **{"Last-Event-ID": "e:1"}) as x:
            assert (await x.next()).event == "reset"

    run(scenario, bus)


def test_records_of_another_program_empty_no_ring() -> None:
    """A subscriber that starts behind more of them than it keeps windows has its windows, and keeps the records."""
    bus = prepared()
    writer = bus.writer()
    for number in (1, 2, 3):
        writer.send(FEED, window(number))
    for _ in range(RING_MAX + 100):
        writer.send(FEED, b"nonsense")

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x", **{"Last-Event-ID": "e:1"}) as x:
            assert await x.ids(2) == ["e:2", "e:3"]

    run(scenario, bus)
    letters = kept(bus.tail(NAMES.dead_letters.name, 9_999))
    assert letters
    assert {letter.topic for letter in letters} == {FEED}


def test_route_behind_the_end_of_the_windows_hides_none() -> None:
    """Another program wrote it, or the topic of the windows was made again: the subscriber sends what it gets."""
    bus = prepared()
    bus.ensure(NAMES.aggregates, NAMES.clusters)
    bus.writer().send(NAMES.clusters.name, encode(ClusterRoute("1", 2**62)), b"1")
    bus.writer().send(FEED, window(1))

    async def scenario(live: Live) -> None:
        live.register("x")
        await live.until(lambda health: health["last_event_id"] == "e:1")
        async with live.watch("x") as x:
            await x.greeted()
            live.publish(2)
            assert await x.ids(1) == ["e:2"]

    run(scenario, bus)


def test_announcements_name_every_held_client_twice_per_minute() -> None:
    """Each names one part of them, so that no announcement grows with the crowd."""

    class Nowhere:
        def write(self, data: object) -> None:
            """Drop it."""

        def is_full(self) -> bool:
            """Never."""
            return False

        def abort(self) -> None:
            """Nothing is open."""

        def stuck_s(self, now_s: float) -> float:
            """Nothing waits."""
            return 0.0

    subscriber = Subscriber(Settings(), "http://s")
    clients = {f"client-{n}" for n in range(600)}
    for client_id in clients:
        subscriber.fanout.join(Stream(client_id, Nowhere()), 0)
    named = [subscriber.announcement().held for _ in range(30)]
    assert sorted(client_id for held in named for client_id in held) == sorted(clients)
    assert max(map(len, named)) < 100


def test_reader_that_gives_up_ends_the_subscriber_with_its_error() -> None:
    """A subscriber that can no longer read does not stay up."""

    async def scenario() -> None:
        bus = prepared()
        stop = threading.Event()
        port = lifecycle.claim_port("127.0.0.1", 0, "subscriber_port")
        server = asyncio.create_task(serve(Settings(), port, bus, bus, stop))
        while not bus.tail(NAMES.subscribers.name, 1):
            await asyncio.sleep(0.005)
        bus._topics[FEED][0].append("no record")  # type: ignore[arg-type]
        bus.writer().send(FEED, window(1))
        with pytest.raises(AttributeError):
            await server

    asyncio.run(scenario())


def test_unreadable_registrations_are_skipped() -> None:
    """A foreign writer's record neither stops the subscriber nor opens a stream."""
    subscriber = Subscriber(Settings(), "http://s")
    bus = prepared()
    writer = bus.writer()
    writer.send(NAMES.clients.name, b"nonsense", b"x")
    writer.send(NAMES.clients.name, b"nonsense")
    subscriber.take_registrations(bus.tail(NAMES.clients.name, 9))
    assert len(subscriber.tokens) == 0


def test_foreign_registrations_are_bounded() -> None:
    """In number by clients_max, in bytes, and each under its own id: nobody else's key is kept."""
    subscriber = Subscriber(Settings(clients_max=2), "http://s")
    bus = prepared()
    writer = bus.writer()
    for name, key in (("x", "x"), ("y", "another" * 1_000), ("z", "z"), ("w", "w")):
        writer.send(NAMES.clients.name, encode(Registration(name, "d", "1", "1", 1)), key.encode())
    writer.send(NAMES.clients.name, encode(Registration("x", "d" * 4_096, "1", "1", 2)), b"x")
    subscriber.take_registrations(bus.tail(NAMES.clients.name, 9))
    assert len(subscriber.tokens) == 2
    assert {"x", "z"} == {name for name in "xyzw" if name in subscriber.tokens}
    assert asyncio.run(subscriber.tokens.find("x", 0)) == "d"
    writer.send(NAMES.clients.name, None, b"x")
    writer.send(NAMES.clients.name, encode(Registration("w", "d", "1", "1", 1)), b"w")
    subscriber.take_registrations(bus.tail(NAMES.clients.name, 2))
    assert "w" in subscriber.tokens


def test_health_says_whether_the_topics_are_read() -> None:
    """A thread that hangs leaves its clients without windows, while the event loop answers."""
    subscriber, turns = Subscriber(Settings(), "http://s"), Turns()
    assert subscriber.health()["stalled_s"] == 0.0
    subscriber.followed = (Turns(), turns)
    turns.mark()
    until(lambda: cast(float, subscriber.health()["stalled_s"]) > 0.05, "the topic is not read")


async def connect(
    port: int, client_id: str, version: str = "1.1", receive_bytes: int | None = None, path: str = "stream"
) -> socket.socket:
    """Open a client's stream, or another path of it, on a bare socket, and read nothing."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setblocking(False)
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await send_request(raw, client_id, version, path)
    return raw


async def send_request(raw: socket.socket, client_id: str, version: str = "1.1", path: str = "stream") -> None:
    """Ask for a client's stream, or another path of it."""
    request = (
        f"GET /clients/{client_id}/{path} HTTP/{version}\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer token-{client_id}\r\n\r\n"
    )
    await asyncio.get_running_loop().sock_sendall(raw, request.encode())


def test_heap_is_trimmed_when_half_the_streams_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming pauses the other streams: so it happens neither for every client that leaves nor twice in a row."""
    monkeypatch.setattr(app, "TRIM_STREAMS_MIN", 4)
    trims: list[int] = []
    sweeps: list[float] = []
    monkeypatch.setattr(app, "SWEEP_S", 0.005)
    monkeypatch.setattr(Fanout, "sweep_idle", lambda _fanout, now_s, _idle_max_s: sweeps.append(now_s))
    monkeypatch.setattr(app, "trim_heap", lambda: trims.append(1))

    async def scenario(live: Live) -> None:
        async def swept() -> None:
            # The first sweep may have started before this call; two whole ones must have seen the present state.
            expected = len(sweeps) + 4
            while len(sweeps) < expected:
                await asyncio.sleep(0.005)

        async with AsyncExitStack() as first, AsyncExitStack() as rest:
            for number in range(4):
                live.register(f"c{number}")
                await (first if number < 2 else rest).enter_async_context(live.watch(f"c{number}"))
            await live.until(lambda health: health["clients"] == 4)
            await swept()
            await first.aclose()
            await live.until(lambda health: health["clients"] == 2)
            await swept()
            assert trims == []
        await live.until(lambda health: health["clients"] == 0)
        while not trims:
            await asyncio.sleep(0.005)
        await swept()
        assert trims == [1]

    run(scenario)


@pytest.mark.parametrize("origin", ["null", "http://localhost:8080"])
def test_redirected_page_opens_its_stream_by_the_ticket(origin: str) -> None:
    """A browser sends Origin null after a redirect across origins; the page may have another name of this machine.

    The preflight does not use the ticket up. A refused ticket is explained to the page.
    """

    async def scenario(live: Live) -> None:
        live.register("x")
        url = f"{live.url}/clients/x/stream?ticket={ticket('x')}"
        page = {"Origin": origin}
        for method, status in (("OPTIONS", 204), ("GET", 200), ("GET", 401)):
            async with live.http.request(method, url, headers=page) as answer:
                assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, origin)
        # Some libraries send the origin of the address that they open.
        for sender in (origin, live.url):
            url = f"{live.url}/clients/x/socket?ticket={ticket('x')}"
            async with live.http.ws_connect(url, headers={"Origin": sender}) as socket:
                assert (await socket.receive_json())["event"] == "begin"
        async with live.http.get(f"{live.url}/clients/x/stream", headers=page | {"Cookie": "x=1"}) as answer:
            assert answer.status == 403

    run(scenario)


def test_ticket_does_not_admit_another_page() -> None:
    """403, and the ticket is still valid."""

    async def scenario(live: Live) -> None:
        live.register("x")
        url = f"{live.url}/clients/x/stream?ticket={ticket('x')}"
        async with live.http.get(url, headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403
        async with live.http.get(url) as answer:
            assert answer.status == 200

    run(scenario)
