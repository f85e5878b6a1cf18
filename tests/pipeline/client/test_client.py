"""The client, against a registry and a subscriber that do what they are told."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client import backoff, transports
from pipeline.client import client as client_module
from pipeline.client.client import Client
from pipeline.client.http import open_session, retry_after_s
from pipeline.client.session import LED_WAIT_MAX_S, LOUD_AFTER, WAIT_MAX_S, Reset
from pipeline.errors import ClientError, MessageError, SettingError
from tests.harness.scripted_server import PATHS, Refuse, Scripted, Send, reset, window

DEADLINE_S = 30
every_transport = pytest.mark.parametrize("transport", PATHS)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `scenario`; afterwards there is no task left."""

    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float, float, float]]:
    """Nothing is waited for; what would have been decides: (failures, base_s, cap_s, retry_after_s) each time."""
    asked: list[tuple[int, float, float, float]] = []

    def wait_s(*given: float) -> float:
        asked.append(given)  # type: ignore[arg-type]
        return 0.0

    monkeypatch.setattr(backoff, "wait_s", wait_s)
    return asked


async def take(client: Client, count: int) -> list[str]:
    """The ids of the next `count` windows; the loop is then left."""
    ids: list[str] = []
    async for got in client:
        ids.append(got.event_id)
        if len(ids) == count:
            break
    return ids


# registering, and giving windows


@every_transport
def test_it_registers_gives_windows_and_leaves(transport: Any) -> None:
    """The token goes along to the other port, and the registration ends with the block."""

    async def scenario() -> None:
        async with Scripted(Send([window(1), window(2)]), Send([window(3)])) as server:
            async with Client.register(server.url + "/", "7", transport) as client:
                assert await take(client, 2) == ["e:1", "e:2"]
                assert (client.ticket.client_id, client.ticket.cluster) == ("c1", "7")
            assert server.registered == [
                {"cluster": "7"} if transport == "sse" else {"cluster": "7", "transport": transport}
            ]
            assert server.requests[0].headers["Authorization"] == "Bearer token-c1"
            assert not any("token-c1" in str(request.rel_url) for request in server.requests)
            assert server.deleted == ["c1"]
            await server.until(lambda: server.open == 0)

    run(scenario)


def test_a_window_is_whole() -> None:
    """What a subscriber sent comes out as a Window, emoji and hops included."""

    async def scenario() -> None:
        async with Scripted(Send([window(1, emoji="👩‍🚀")])) as server, Client.register(server.url) as client:
            async for got in client:
                assert (got.epoch, got.window, got.total, len(got.hops)) == ("e", 1, 38, 3)
                assert got.reactions[0].emoji_type == "👩‍🚀"
                break

    run(scenario)


def test_a_bare_loop_registers_and_a_break_ends_the_registration() -> None:
    """`async for window in Client.register(url)` is all there is to write."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)])) as server:
            async for got in Client.register(server.url):
                assert got.event_id == "e:1"
                break
            await server.until(lambda: server.deleted == ["c1"] and server.open == 0)
            # The loop's own task that closes the generator has a last step to make.
            await server.until(lambda: len(asyncio.all_tasks()) == before)

    async def counted() -> None:
        nonlocal before
        async with Scripted():
            before = len(asyncio.all_tasks())
        await scenario()

    before = 0
    run(counted)


def test_a_break_loses_nothing_that_had_come() -> None:
    """Three windows in one read, two loops: the second goes on where the first was left, on the same connection."""

    async def scenario() -> None:
        events = [window(1), window(2), window(3)]
        async with Scripted(Send(events)) as server, Client.register(server.url) as client:
            assert await take(client, 1) == ["e:1"]
            assert await take(client, 2) == ["e:2", "e:3"]
            assert len(server.requests) == 1

    run(scenario)


def test_a_window_waited_for_in_vain_is_not_lost() -> None:
    """A timeout around one step leaves the connection as it was."""

    async def scenario() -> None:
        async with Scripted(Send([])) as server, Client.register(server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await take(client, 1)
            await server.until(lambda: len(server.requests) == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await take(client, 1)
            assert (len(server.requests), server.open) == (1, 1)

    run(scenario)


# resuming


@every_transport
@pytest.mark.parametrize("then", ["end", "cut"])
def test_it_resumes_after_the_last_window(waits: list[Any], transport: Any, then: Any) -> None:
    """Whether the stream ended or broke, the next one goes on after the last id, and nothing is given twice."""

    async def scenario() -> None:
        acts = [Send([window(1), window(2)], then), Send([window(2), window(3)], then), Send([window(4)])]
        if transport == "poll" and then == "cut":
            acts = [Send([window(1), window(2)]), Send([], "cut"), Send([window(2), window(3)]), Send([window(4)])]
        async with Scripted(*acts) as server, Client.register(server.url, transport=transport) as client:
            assert await take(client, 4) == ["e:1", "e:2", "e:3", "e:4"]
            assert list(dict.fromkeys(server.afters)) == ["", "e:2", "e:3"]
            assert len(server.registered) == 1

    run(scenario)


def test_an_event_cut_in_two_is_not_given_and_not_counted(waits: list[Any]) -> None:
    """Half a window moves nothing: the next connection asks for the whole of it."""

    async def scenario() -> None:
        half = ("e:2", "window", b'{"half": 1}\nid: e:99\ndata: more'.replace(b"\n", b" "))
        async with Scripted(Send([window(1)], "cut"), Send([window(2)])) as server:
            original = server._stream

            async def torn(request: Any, act: Send) -> Any:
                if request.headers.get("Last-Event-ID"):
                    return await original(request, act)
                server.afters.append("")
                response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                first = b"id: e:1\nevent: window\ndata: %b\n\n" % window(1)[2]
                await response.write(first + b"id: e:2\nevent: window\ndata: %b\n" % half[2])
                await server._then(request, act)
                return response

            server._stream = torn  # type: ignore[method-assign]
            async with Client.register(server.url) as client:
                assert await take(client, 2) == ["e:1", "e:2"]
            assert server.afters == ["", "e:1"]

    run(scenario)


def test_an_id_without_an_event_is_a_place_to_resume_from(waits: list[Any]) -> None:
    """A server may say where its stream begins: a client that got no window yet then misses none either."""

    async def scenario() -> None:
        async with Scripted(Send([], "end"), Send([window(6)])) as server:
            original = server._stream

            async def greeting(request: Any, act: Send) -> Any:
                if request.headers.get("Last-Event-ID"):
                    return await original(request, act)
                response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                await response.write(b"id: e:5\n\n")
                return response

            server._stream = greeting  # type: ignore[method-assign]
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:6"]
            assert server.afters == ["e:5"]

    run(scenario)


@every_transport
def test_a_silent_connection_is_dead(monkeypatch: pytest.MonkeyPatch, waits: list[Any], transport: Any) -> None:
    """Without so much as a heartbeat for SILENT_S the client connects anew: the other side may be gone."""
    monkeypatch.setattr(transports, "SILENT_S", 0.05)
    monkeypatch.setattr(transports, "_STREAM", aiohttp.ClientTimeout(total=None, sock_read=0.05))

    async def scenario() -> None:
        acts = (Send([window(1)]), Send([]), Send([window(2)]))
        async with Scripted(*acts) as server, Client.register(server.url, transport=transport) as client:
            assert await take(client, 2) == ["e:1", "e:2"]
            assert server.afters[-1] == "e:1"

    run(scenario)


def test_windows_are_given_once_and_in_order(waits: list[Any]) -> None:
    """Doubled and earlier ones are dropped, a new epoch begins anew; who measures sees all of it."""
    sent = [window(1), window(2), window(1), window(2), window(3), window(0, "f"), window(3), window(1, "f")]

    async def scenario() -> None:
        async with Scripted(Send(sent), Send(sent)) as server:
            async with Client.register(server.url) as client:
                assert await take(client, 5) == ["e:1", "e:2", "e:3", "f:0", "f:1"]
            async with Client.register(server.url) as client:
                seen = []
                async for batch in client.received():
                    assert batch.received_ns > 0
                    seen += [(event.event, event.id) for event in batch.events]
                    if len(seen) > len(sent):
                        break
        assert seen == [("open", ""), *(("window", event[0]) for event in sent)]

    run(scenario)


# gaps


@every_transport
def test_a_reset_is_told_where_the_gap_is(waits: list[Any], transport: Any) -> None:
    """`on_reset` is called between the last window before the gap and the first one after it."""
    told: list[str | Reset] = []

    async def scenario() -> None:
        acts = [Send([window(1)], "end"), Send([reset("too old", "e:1", "e:7"), window(8)], "end"), Send([window(9)])]
        async with (
            Scripted(*acts) as server,
            Client.register(server.url, transport=transport, on_reset=told.append) as client,
        ):
            async for got in client:
                told.append(got.event_id)
                if got.window == 9:
                    break
            assert server.afters[-1] == "e:8"

    run(scenario)
    assert told == ["e:1", Reset("too old", "e:1", "e:7"), "e:8", "e:9"]


def test_a_reset_nobody_asked_about_is_logged_and_one_that_raises_ends_the_loop(
    waits: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A gap is never silent."""

    class Gap(Exception):
        pass

    def refuse(_reset: Reset) -> None:
        raise Gap

    async def scenario() -> None:
        acts = [Send([reset("too old", "e:1"), window(8)]), Send([reset("too old", "e:1"), window(8)])]
        async with Scripted(*acts) as server:
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:8"]
            async with Client.register(server.url, on_reset=refuse) as client:
                with pytest.raises(Gap):
                    await take(client, 1)

    run(scenario)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "windows after e:1 were missed: too old"
    ]


@every_transport
def test_an_id_that_the_server_never_gave_is_forgotten_and_told_of(waits: list[Any], transport: Any) -> None:
    """409, or 1008 to a first message: the client begins anew, at once, and says that there may be a gap."""
    told: list[Reset] = []

    async def scenario() -> None:
        refusal = Refuse(409, "another epoch's", after_upgrade=True)
        acts = [Send([window(1)], "end"), refusal, Send([window(0, "f")])]
        async with (
            Scripted(*acts) as server,
            Client.register(server.url, transport=transport, on_reset=told.append) as client,
        ):
            assert await take(client, 2) == ["e:1", "f:0"]
            assert [after for after in server.afters if after != "f:0"] == ["", "e:1", ""]

    run(scenario)
    assert told == [Reset("another epoch's", "e:1", "")]
    assert len(waits) == (transport != "poll")


# refusals


@pytest.mark.parametrize("status", [400, 401, 403, 405])
@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_a_refusal_for_good_is_raised_in_the_servers_words(status: int, transport: Any) -> None:
    """Nothing is tried again that would be refused again; the error names who refused what."""

    async def scenario() -> None:
        async with Scripted(Refuse(status, "this will not do")) as server:
            async with Client.register(server.url, transport=transport) as client:
                with pytest.raises(ClientError, match=rf"{server.place}/.* {status} .*: this will not do") as raised:
                    await take(client, 1)
            assert raised.value.status == status
            assert server.deleted == ["c1"]
            assert len(server.requests) == 1

    run(scenario)


def test_a_websocket_refused_for_good_is_raised() -> None:
    """Of a failed handshake there is only the status."""

    async def scenario() -> None:
        async with Scripted(Refuse(403)) as server, Client.register(server.url, transport="websocket") as client:
            with pytest.raises(ClientError, match="403 instead of a WebSocket"):
                await take(client, 1)

    run(scenario)


def test_a_page_is_no_stream() -> None:
    """200 with another content type is what a portal in between answers."""

    async def scenario() -> None:
        act = Send([], "end", content_type="text/html")
        async with Scripted(act) as server, Client.register(server.url) as client:
            with pytest.raises(ClientError, match="200 instead of 200 and text/event-stream"):
                await take(client, 1)

    run(scenario)


@pytest.mark.parametrize("status", [422, 429, 503])
def test_the_registrys_refusal_is_raised_at_once(status: int) -> None:
    """Who registers is there to hear why not; when to come back stands in the error."""

    async def scenario() -> None:
        async with Scripted() as server:
            server.registering.append(Refuse(status, "nobody is live", {"Retry-After": "7"}))
            with pytest.raises(ClientError, match=f"{status} instead of 201: nobody is live") as raised:
                async with Client.register(server.url):
                    raise AssertionError("it was entered")
            assert raised.value.retry_after_s == 7

    run(scenario)


def test_a_registry_that_is_none_is_named() -> None:
    """Nobody there, no URL, and somebody else: each says what to do."""

    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(ClientError, match=f"no answer from {url}/clients: .*Check that the chain is up"):
                await take(Client.register(url), 1)
        for nonsense in ("127.0.0.1:8080", "http://", ""):
            with pytest.raises(ClientError, match="give it as http://host:port"):
                await take(Client.register(nonsense), 1)
        async with Scripted() as server:
            # A redirect is not followed with what a registration is worth.
            server.registering.append(Refuse(308, headers={"Location": f"{server.url}/clients"}))
            with pytest.raises(ClientError, match="308 instead of 201"):
                await take(Client.register(server.url), 1)
            server.registering.append(Refuse(201, "hello"))
            with pytest.raises(ClientError, match=r"no registration .*client_id"):
                await take(Client.register(server.url), 1)

    run(scenario)


def test_an_unknown_transport_is_refused_when_it_is_named() -> None:
    """Before anything is connected to."""
    with pytest.raises(SettingError, match="'pigeon': choose one of sse, websocket, poll"):
        Client.register("http://127.0.0.1:1", transport="pigeon")  # type: ignore[arg-type]


@every_transport
def test_a_window_that_is_none_is_raised(transport: Any) -> None:
    """Neither passed over nor guessed at."""

    async def scenario() -> None:
        act = Send([("e:1", "window", b'{"epoch": 5}')])
        async with Scripted(act) as server, Client.register(server.url, transport=transport) as client:
            with pytest.raises(MessageError, match="not a Window"):
                await take(client, 1)

    run(scenario)


# gone


def test_a_registration_that_the_registry_lost_is_made_anew(waits: list[Any]) -> None:
    """The new one goes on after the last window; what is left to end is the new one."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)], "end"), Send([window(2)])) as server:
            async with Client.register(server.url, "7") as client:
                assert await take(client, 1) == ["e:1"]
                server.leading.append(Refuse(404, "no such client"))
                # Anew means: until it is granted.
                server.registering.append(Refuse(503, "nobody is live", {"Retry-After": "2"}))
                assert await take(client, 1) == ["e:2"]
                assert client.ticket.client_id == "c2"
            assert server.registered == [{"cluster": "7"}] * 2
            assert server.afters == ["", "e:1"]
            assert server.deleted == ["c2"]

    run(scenario)
    assert [asked[3] for asked in waits] == [0, 0, 2]


def test_a_subscriber_that_does_not_know_the_client_yet_is_asked_again(waits: list[Any]) -> None:
    """Only the registry can tell whether a client is registered."""

    async def scenario() -> None:
        async with Scripted(Refuse(404), Refuse(404), Send([window(1)])) as server:
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:1"]
            assert len(server.registered) == 1

    run(scenario)


@pytest.mark.parametrize("by", ["registry", "subscriber"])
def test_a_client_that_was_deleted_stops(waits: list[Any], by: str) -> None:
    """204 is the standard's way to say so: the loop ends, and nothing is asked for any more."""

    async def scenario() -> None:
        acts = [Send([window(1)], "end"), Refuse(204)]
        async with Scripted(*acts) as server:
            if by == "registry":
                server.acts.pop()
            async with Client.register(server.url) as client:
                ids = []
                async for got in client:
                    ids.append(got.event_id)
                    if by == "registry":
                        server.leading.append(Refuse(204))
                assert [got.event_id async for got in client] == []
            assert ids == ["e:1"]
            assert server.deleted == []

    run(scenario)


# waiting


def test_what_waits_grow_from_and_up_to(waits: list[Any]) -> None:
    """The server's `retry` is the base, Retry-After comes on top; a window makes everything well again.

    Where the registry leads, waits stay short: it will soon lead elsewhere.
    """

    async def scenario() -> None:
        acts = [
            *(Refuse(503), Refuse(503, headers={"Retry-After": "9"})),
            *(Send([], "end", retry_ms=250), Send([window(1)], "end"), Refuse(500), Send([window(2)])),
        ]
        async with Scripted(*acts) as server:
            server.leading.extend([Refuse(500), Refuse(503, headers={"Retry-After": "3"})])
            async with Client.register(server.url) as client:
                assert await take(client, 2) == ["e:1", "e:2"]

    run(scenario)
    led, alone = LED_WAIT_MAX_S, WAIT_MAX_S
    assert waits == [
        *((0, 1.0, alone, 0.0), (1, 1.0, alone, 3.0), (2, 1.0, led, 0.0), (3, 1.0, led, 9.0)),
        *((4, 0.25, led, 0.0), (0, 0.25, led, 0.0), (1, 0.25, led, 0.0)),
    ]


def test_an_outage_is_said_aloud_once(waits: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """A lost connection is nothing to worry about; that it does not come back is."""

    async def scenario() -> None:
        acts = [*[Refuse(500, "broken")] * 9, Send([window(1)])]
        async with Scripted(*acts) as server, Client.register(server.url) as client:
            assert await take(client, 1) == ["e:1"]

    run(scenario)
    aloud = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(aloud) == 1
    assert f"broken; attempt {LOUD_AFTER} in" in aloud[0]


def test_a_poll_that_is_not_made_to_wait_is_no_busy_loop(waits: list[Any]) -> None:
    """A server that has nothing and says so at once is about to end; one that has waited is asked again at once."""

    async def scenario() -> None:
        acts = [Refuse(204), Send([], "end"), Send([window(1)])]
        async with Scripted(*acts) as server, Client.register(server.url, transport="poll") as client:
            assert await take(client, 1) == ["e:1"]

    run(scenario)
    assert len(waits) == 2


@given(
    failures=st.integers(0, 10_000),
    base_s=st.floats(0, 1e6),
    cap_s=st.floats(0.1, 1e4),
    retry_after=st.floats(0, 1e6),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_lies_between_what_the_server_asked_for_and_the_bound(
    failures: int, base_s: float, cap_s: float, retry_after: float, drawn: float
) -> None:
    """Full jitter: from Retry-After on, evenly up to the bound, which doubles from the base to the cap."""
    bound_s = backoff.bound_s(failures, base_s, cap_s)
    wait_s = backoff.wait_s(failures, base_s, cap_s, retry_after, lambda: drawn)
    assert retry_after <= wait_s <= retry_after + bound_s
    assert backoff.wait_s(failures, base_s, cap_s, retry_after, lambda: 0.0) == retry_after
    assert 0 < bound_s <= max(cap_s, base_s, backoff.BASE_MIN_S)
    assert bound_s >= min(base_s, cap_s)


def test_bounds_double_up_to_the_cap() -> None:
    """1, 2, 4, 8 and so on; a base beyond the cap holds, one of nothing does not."""
    assert [backoff.bound_s(n, 1.0, 30.0) for n in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.bound_s(5, 60.0, 30.0) == 60
    assert backoff.bound_s(0, 0.0, 30.0) == backoff.BASE_MIN_S


def test_waits_differ_from_client_to_client() -> None:
    """A thousand that were cut off together come back spread over the whole of the first second."""
    waits = sorted(backoff.wait_s(0, 1.0, 30.0) for _ in range(1000))
    assert waits[0] < 0.05
    assert waits[-1] > 0.95
    assert 0.4 < waits[500] < 0.6


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        *((None, 0), ("0", 0), ("120", 120), (" 7 ", 7), ("-1", 0), ("soon", 0), ("", 0), ("1.5", 0), ("٣", 0)),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 99 Jan 1970 00:00:00 GMT", 0),
    ],
)
def test_retry_after_in_all_its_forms(value: str | None, expected_s: float) -> None:
    """Seconds and dates count, the past and nonsense do not."""
    assert retry_after_s(value, now_s=1000.0) == expected_s


# ending


@every_transport
@pytest.mark.parametrize("moment", ["reading", "waiting", "connecting"])
def test_a_cancelled_client_leaves_neither_task_nor_socket(transport: Any, moment: str) -> None:
    """Whatever it was doing, its registration ends, its socket is closed and no task is left (see `run`)."""

    async def scenario() -> None:
        acts: list[Send | Refuse] = [Send([])]
        if moment == "waiting":
            acts = [Refuse(503, headers={"Retry-After": "1000"})]
        async with Scripted(*acts) as server, asyncio.TaskGroup() as tasks:
            if moment == "connecting":
                server._lead = hang  # type: ignore[method-assign]
                await server.__aexit__()
                await server.__aenter__()
            session = open_session()
            watching = tasks.create_task(take(Client.register(server.url, transport=transport, session=session), 1))
            if moment == "connecting":
                await hanging.wait()
            else:
                await server.until(lambda: server.requests)
            if moment == "waiting":
                await server.until(lambda: server.open == 0)
            watching.cancel()
            await asyncio.wait([watching])
            assert watching.cancelled()
            assert server.deleted == ["c1"]
            assert not session.closed
            await session.close()
            await server.until(lambda: server.open == 0)

    hanging = asyncio.Event()

    async def hang(_request: Any) -> Any:
        hanging.set()
        await asyncio.Event().wait()

    run(scenario)


@every_transport
def test_leaving_ends_the_loop_of_another_task(transport: Any) -> None:
    """The loop ends as loops do."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)])) as server:
            async with Client.register(server.url, transport=transport) as client:
                watching = asyncio.create_task(take(client, 99))
                await server.until(lambda: server.requests)
                await asyncio.sleep(0)
            assert await watching in ([], ["e:1"])
            assert server.deleted == ["c1"]
            await server.until(lambda: server.open == 0)

    run(scenario)


def test_a_registration_that_cannot_be_ended_is_told_of_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """What was done with the windows is done; one that the registry has forgotten is not worth a word."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)]), Send([window(2)])) as server:
            server.deleting.extend([Refuse(503, "Kafka is out"), Refuse(404)])
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:1"]
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:2"]

    run(scenario)
    aloud = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(aloud) == 1
    assert "Kafka is out" in aloud[0]


def test_a_client_can_be_entered_again_and_goes_on() -> None:
    """It is then another registration, and no window is missed in between."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)]), Send([window(2)])) as server:
            client = Client.register(server.url)
            for expected in ("e:1", "e:2"):
                async with client:
                    assert await take(client, 1) == [expected]
                with pytest.raises(ClientError, match="not registered"):
                    _ = client.ticket
            assert server.afters == ["", "e:1"]
            assert server.deleted == ["c1", "c2"]

    run(scenario)


# the command


def test_the_command_prints_lines_and_leaves_on_sigterm() -> None:
    """Each window is a line of JSON as soon as it comes; the registration ends with the process."""

    async def scenario() -> None:
        async with Scripted(Send([window(1), reset("too old", "e:1"), window(9)])) as server:
            process = await command(server.url, "--cluster", "2", "--transport", "websocket")
            assert process.stdout is not None
            lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
            assert [(line["epoch"], line["window"], line["total"]) for line in lines] == [("e", 1, 38), ("e", 9, 38)]
            process.send_signal(signal.SIGTERM)
            rest, errors = await process.communicate()
            assert (process.returncode, rest) == (0, b"")
            assert b"windows after e:1 were missed: too old" in errors
            assert server.registered == [{"cluster": "2", "transport": "websocket"}]
            assert server.deleted == ["c1"]

    run(scenario)


def test_the_command_ends_quietly_when_its_reader_does() -> None:
    """`… | head -1` is no error, and the registration ends."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)], "end"), *[Send([window(n)], "end", 1) for n in range(2, 60)]) as server:
            process = await command(server.url)
            assert process.stdout is not None
            await process.stdout.readline()
            process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            assert process.stderr is not None
            errors = await process.stderr.read()
            assert await process.wait() == 0
            assert b"Traceback" not in errors
            assert b"BrokenPipe" not in errors
            assert server.deleted == ["c1"]

    run(scenario)


def test_the_command_says_in_a_line_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, and status 1."""
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        with pytest.raises(SystemExit, match=r"pipeline\.client: the registry's URL is 'nowhere'"):
            client_module.main(["nowhere"])
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


async def command(*arguments: str) -> asyncio.subprocess.Process:
    """Start `python -m pipeline.client`."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.client", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
