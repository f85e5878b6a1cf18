"""The subscriber over real sockets, its topics in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from pipeline import lifecycle
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.cluster_routes import join
from pipeline.messages import (
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
from pipeline.subscriber.state import Subscriber
from pipeline.tokens import token_sha256

NAMES = topics(Settings())
FEED = NAMES.feed("1").name
DEADLINE_S = 30


class Live:
    """A running subscriber, and hands to play the stages before it."""

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
        """What /healthz says."""
        async with self.http.get(f"{self.url}/healthz") as answer:
            return await answer.json()  # type: ignore[no-any-return]

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until /healthz satisfies `condition`."""
        while not condition(await self.health()):
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def watch(self, client_id: str, **headers: str) -> AsyncIterator[Watcher]:
        """Open a client's stream."""
        headers = {"Authorization": f"Bearer token-{client_id}", **headers}
        async with self.http.get(f"{self.url}/clients/{client_id}/stream", headers=headers) as answer:
            yield Watcher(answer)

    async def refusal(self, client_id: str, query: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        """The status and problem document of a stream that is not given."""
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
        """Wait for the comment every stream begins with: from here on it is joined or refused nothing."""
        while b": connected\n\n" not in self.raw:
            await self._more()

    async def next(self) -> SseEvent:
        """The next event."""
        while not self._events:
            assert await self._more(), "the stream ended"
        return self._events.pop(0)

    async def ids(self, count: int) -> list[str]:
        """The next `count` events' ids."""
        return [(await self.next()).id for _ in range(count)]

    async def ended(self) -> list[SseEvent]:
        """Wait for the end; the events before it."""
        while await self._more():
            pass
        return self._events

    async def _more(self) -> bool:
        chunk = await self.answer.content.readany()
        self.raw += chunk
        self._events += self._parser.feed(chunk)
        return bool(chunk)


def window(number: int, epoch: str = "e", emoji: str = "😂") -> bytes:
    """A window as the cluster publisher leaves it."""
    hops = (Hop("main-publisher", 1, 2, 3), Hop("cluster-publisher-1", 4, 5, 6))
    return encode(Window(epoch, number, 0, 0, {}, 38, [TypeCount(emoji, 38, 4)], hops=hops))


def prepared() -> MemoryBus:
    """A bus with the topics a subscriber needs."""
    bus = MemoryBus()
    bus.ensure(NAMES.clients, NAMES.subscribers, NAMES.feed("1"))
    return bus


def run(
    scenario: Callable[[Live], Any], bus: MemoryBus | None = None, patience_s: float = 1000, **changes: object
) -> None:
    """Run `scenario` against a subscriber of its own, and see that it stops cleanly."""

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


def test_a_window_reaches_every_client_with_every_hop() -> None:
    """The event is as the design says, and carries this subscriber's own stamp last."""

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


def test_windows_from_before_are_not_sent_but_can_be_resumed_from() -> None:
    """A new client begins now; one that knows an id is given what came after it, once and in order."""
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


def test_what_is_too_old_to_be_resumed_is_said() -> None:
    """A reset event names the reason and where the stream goes on; then it does."""
    bus = prepared()
    for number in (10, 11):
        bus.writer().send(FEED, window(number))

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x", **{"Last-Event-ID": "e:1"}) as x:
            event = await x.next()
            assert (event.id, event.event) == ("e:11", "reset")
            assert "too old" in json.loads(event.data)["reason"]
            live.publish(12)
            assert await x.ids(1) == ["e:12"]

    run(scenario, bus, patience_s=0.1)


@pytest.mark.parametrize(("last", "reason"), [("e:99", "beyond the newest, 11"), ("gone:3", "epoch gone is not kept")])
def test_an_id_that_this_feed_never_gave_is_refused(last: str, reason: str) -> None:
    """One from the future or from another epoch is no client's of this stream: 409, with what to do."""
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


def test_a_window_is_forwarded_once_and_nonsense_never() -> None:
    """A repeated record is dropped, one that is no window is passed over, a new epoch starts again."""

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


def test_only_a_clients_own_token_opens_its_stream() -> None:
    """None, or one in the query, is 401, another's 403; the cookie is as good as the header."""

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


def test_an_unknown_client_and_a_malformed_id_are_refused() -> None:
    """404 once patience has ended, 400 for an id that no server sent."""

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


def test_a_client_may_come_before_its_registration() -> None:
    """The registry answers as soon as Kafka has the record, which may be sooner than it is read here."""

    async def scenario(live: Live) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, live.register, "x")
        async with live.watch("x") as x:
            assert x.answer.status == 200

    run(scenario)


def test_a_deleted_client_is_streamed_to_no_longer() -> None:
    """Its stream ends properly, it cannot come back, and the others stay."""

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


def test_beyond_the_cap_the_answer_is_503_and_a_place_is_free_again_when_a_client_leaves() -> None:
    """Never a hang: a refused client is told when to come back, and can."""

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


def test_a_client_that_does_not_read_is_cut_off_and_nobody_else_notices() -> None:
    """Once its queue is full its connection is reset; the reading client has every window, in order."""

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


def test_a_client_that_reads_late_gets_everything_in_order() -> None:
    """What a connection does not take at once waits, and follows as soon as its client reads."""

    async def scenario(live: Live) -> None:
        live.register("late")
        late = await connect(live.port, "late")
        await live.until(lambda health: health["clients"] == 1)
        # 40 MB: more than the kernel's buffers hold.
        live.publish(*range(10), emoji="😂" * 1_000_000)
        await live.until(lambda health: health["feed_offset"] == 9)
        loop, parser, ids = asyncio.get_running_loop(), SseParser(), []
        with late:
            # The head of the response and the chunks' framing end up in fields the parser passes over.
            while len(ids) < 10:
                chunk = await loop.sock_recv(late, 1 << 20)
                assert chunk, "the stream ended"
                ids += [event.id for event in parser.feed(chunk)]
        assert ids == [f"e:{n}" for n in range(10)]

    run(scenario)


def test_a_client_that_sends_bytes_on_its_stream_is_cut_off_and_nobody_else_notices() -> None:
    """What it sends is not kept for a request that never gets its turn: its connection ends at the first byte."""

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


def test_http_1_0_gets_the_same_events_unchunked() -> None:
    """An old proxy in between still works."""

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


def test_a_second_connection_of_a_client_takes_over() -> None:
    """The first may be half open: it ends, and the second has the windows."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x") as first, live.watch("x") as second:
            assert await first.ended() == []
            live.publish(1)
            assert await second.ids(1) == ["e:1"]

    run(scenario)


def test_heartbeats_go_out_between_windows() -> None:
    """A comment comes every heartbeat_s, and is no event."""

    async def scenario(live: Live) -> None:
        live.register("x")
        async with live.watch("x") as x:
            while x.raw.count(b": heartbeat\n\n") < 3:
                assert await x._more()
            live.publish(1)
            assert await x.ids(1) == ["e:1"]

    run(scenario, heartbeat_s=0.05)


def test_the_page_of_the_same_host_is_let_in_and_no_other() -> None:
    """The registry's page has another port; another host's page is told nothing."""

    async def scenario(live: Live) -> None:
        live.register("x")
        allowed = "Access-Control-Allow-Origin"
        async with live.watch("x", Origin="http://127.0.0.1:8080") as x:
            assert x.answer.headers[allowed] == "http://127.0.0.1:8080"
            assert x.answer.headers["Access-Control-Allow-Credentials"] == "true"
        for origin in ("http://evil.example", "null", "http://[", "http://127.0.0.1.evil.example"):
            async with live.watch("x", Origin=origin) as x:
                assert allowed not in x.answer.headers
        async with live.http.options(
            f"{live.url}/clients/x/stream", headers={"Origin": "http://127.0.0.1:8080"}
        ) as answer:
            assert answer.headers[allowed] == "http://127.0.0.1:8080"
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]

    run(scenario)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/clients/x/stream", 405)])
def test_what_is_not_served_is_a_problem_document(method: str, path: str, status: int) -> None:
    """Refusals that are the framework's own speak the same language."""

    async def scenario(live: Live) -> None:
        async with live.http.request(method, live.url + path) as answer:
            assert (answer.status, answer.content_type) == (status, "application/problem+json")

    run(scenario)


def test_it_announces_itself_with_its_load_and_leaves_with_a_tombstone() -> None:
    """The registry hears of every client and of the end, and the streams end cleanly."""
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
            said = decode_announcement(record.value)
            if said.clients == 1 and said.last_event_id == "e:4":
                break
            await asyncio.sleep(0.01)
        assert (record.key, said.url) == (b"1/1", live.url)
        ends.append(asyncio.create_task(Watcher(answer).ended()))
        # Let the task begin to read; `run` then stops the subscriber.
        await asyncio.sleep(0)

    run(scenario, bus)
    assert bus.tail(NAMES.subscribers.name, 1)[0].value is None
    assert ends[0].done()
    assert ends[0].result() == []


@pytest.mark.parametrize("place", [("1", "2"), ("2", "1")])
def test_a_client_whose_place_is_elsewhere_now_is_let_go(place: tuple[str, str]) -> None:
    """Its stream ends with all it was given; others go on, and it may come back if it has to."""

    async def scenario(live: Live) -> None:
        live.register("x")
        live.register("y")
        async with live.watch("x") as x, live.watch("y") as y:
            await live.until(lambda health: health["clients"] == 2)
            live.publish(1)
            assert await x.ids(1) == await y.ids(1) == ["e:1"]
            live.register("y")
            live.register("x", *place)
            assert await x.ended() == []
            live.publish(2)
            assert await y.ids(1) == ["e:2"]
        async with live.watch("x", **{"Last-Event-ID": "e:1"}) as again:
            assert await again.ids(1) == ["e:2"]

    run(scenario)


def test_what_lies_before_a_gap_is_not_replayed() -> None:
    """A cluster that was removed and added again begins anew: who was there before is told so."""
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


def test_every_client_it_holds_is_named_once_a_minute() -> None:
    """A part of them in each announcement, so that none grows with the crowd."""

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
    named = [subscriber.announcement().held for _ in range(60)]
    assert sorted(one for held in named for one in held) == sorted(clients)
    assert max(map(len, named)) < 100


def test_a_reader_that_gives_up_ends_the_stage_with_its_error() -> None:
    """A subscriber that can read no more does not pretend to live."""

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


def test_registrations_that_are_none_are_passed_over() -> None:
    """A foreign writer's record neither stops the subscriber nor opens a stream."""
    subscriber = Subscriber(Settings(), "http://s")
    bus = prepared()
    writer = bus.writer()
    writer.send(NAMES.clients.name, b"nonsense", b"x")
    writer.send(NAMES.clients.name, b"nonsense")
    subscriber.take_registrations(bus.tail(NAMES.clients.name, 9))
    assert len(subscriber.tokens) == 0


async def connect(port: int, client_id: str, version: str = "1.1", receive_bytes: int | None = None) -> socket.socket:
    """Open a client's stream on a bare socket, and read nothing."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setblocking(False)
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await loop.sock_connect(raw, ("127.0.0.1", port))
    request = (
        f"GET /clients/{client_id}/stream HTTP/{version}\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer token-{client_id}\r\n\r\n"
    )
    await loop.sock_sendall(raw, request.encode())
    return raw


def test_memory_is_given_back_when_half_the_crowd_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs the others a moment: so not for every client that leaves, and not again without need."""
    monkeypatch.setattr(app, "TRIM_STREAMS_MIN", 4)
    given: list[int] = []
    looks: list[float] = []
    monkeypatch.setattr(app, "SWEEP_S", 0.005)
    monkeypatch.setattr(Fanout, "sweep_idle", lambda _fanout, now_s, _most_s: looks.append(now_s))
    monkeypatch.setattr(app, "trim_heap", lambda: given.append(1))

    async def scenario(live: Live) -> None:
        async def looked() -> None:
            # The first may have begun before; of two whole ones both have seen what is so now.
            wanted = len(looks) + 4
            while len(looks) < wanted:
                await asyncio.sleep(0.005)

        async with AsyncExitStack() as first, AsyncExitStack() as rest:
            for number in range(4):
                live.register(f"c{number}")
                await (first if number < 2 else rest).enter_async_context(live.watch(f"c{number}"))
            await live.until(lambda health: health["clients"] == 4)
            await looked()
            await first.aclose()
            await live.until(lambda health: health["clients"] == 2)
            await looked()
            assert given == []
        await live.until(lambda health: health["clients"] == 0)
        while not given:
            await asyncio.sleep(0.005)
        await looked()
        assert given == [1]

    run(scenario)
