"""The client, against a registry and a subscriber that follow a script."""

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

from pipeline import backoff
from pipeline.client import __main__ as client_main
from pipeline.client import transports
from pipeline.client.client import Client
from pipeline.client.http import open_session, retry_after_s
from pipeline.client.session import REDIRECTED_WAIT_MAX_S, WAIT_MAX_S, WARN_AT_FAILURE, Reset
from pipeline.errors import ClientError, MessageError, SettingError
from tests.harness.stages.scripted_server import PATHS, Refuse, Scripted, Send, reset, window

DEADLINE_S = 30
every_transport = pytest.mark.parametrize("transport", PATHS)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `scenario`; check that no task is left afterwards."""

    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float, float, float]]:
    """Do not wait; the list gets each wait's (failures, base_s, cap_s, retry_after_s)."""
    waits: list[tuple[int, float, float, float]] = []

    def wait_s(*arguments: float) -> float:
        waits.append(arguments)  # type: ignore[arg-type]
        return 0.0

    monkeypatch.setattr(backoff, "wait_s", wait_s)
    return waits


async def take(client: Client, count: int) -> list[str]:
    """Return the ids of the next `count` windows; the loop then breaks."""
    ids: list[str] = []
    async for got in client:
        ids.append(got.event_id)
        if len(ids) == count:
            break
    return ids


# registering, and yielding windows


@every_transport
def test_client_registers_yields_windows_and_unregisters(transport: Any) -> None:
    """It sends the token to the subscriber's port too, and unregisters at the end of the block."""

    async def scenario() -> None:
        async with Scripted(Send([window(1), window(2)]), Send([window(3)])) as server:
            async with Client.register(server.url + "/", "7", transport) as client:
                assert await take(client, 2) == ["e:1", "e:2"]
                assert (client.credentials.client_id, client.credentials.cluster) == ("c1", "7")
            assert server.registered == [
                {"cluster": "7"} if transport == "sse" else {"cluster": "7", "transport": transport}
            ]
            assert server.requests[0].headers["Authorization"] == "Bearer token-c1"
            assert not any("token-c1" in str(request.rel_url) for request in server.requests)
            # A ticket admits one request, and would decide before the token.
            assert not any("ticket" in request.query for request in server.requests)
            assert server.deleted == ["c1"]
            await server.until(lambda: server.open == 0)

    run(scenario)


def test_window_keeps_emoji_and_hops() -> None:
    """A subscriber's event becomes a complete Window."""

    async def scenario() -> None:
        async with Scripted(Send([window(1, emoji="👩‍🚀")])) as server, Client.register(server.url) as client:
            async for got in client:
                assert (got.epoch, got.window, got.total, len(got.hops)) == ("e", 1, 38, 3)
                assert got.reactions[0].emoji_type == "👩‍🚀"
                break

    run(scenario)


def test_plain_loop_registers_and_a_break_ends_the_registration() -> None:
    """`async for window in Client.register(url)` is all a program needs."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)])) as server:
            async for got in Client.register(server.url):
                assert got.event_id == "e:1"
                break
            await server.until(lambda: server.deleted == ["c1"] and server.open == 0)
            # The event loop's task that closes the generator has a last step to run.
            await server.until(lambda: len(asyncio.all_tasks()) == before)

    async def counted() -> None:
        nonlocal before
        async with Scripted():
            before = len(asyncio.all_tasks())
        await scenario()

    before = 0
    run(counted)


def test_break_loses_no_received_window() -> None:
    """Three windows in one read, two loops: the second loop continues after the first, on the same connection."""

    async def scenario() -> None:
        events = [window(1), window(2), window(3)]
        async with Scripted(Send(events)) as server, Client.register(server.url) as client:
            assert await take(client, 1) == ["e:1"]
            assert await take(client, 2) == ["e:2", "e:3"]
            assert len(server.requests) == 1

    run(scenario)


def test_timeout_around_one_step_keeps_the_connection() -> None:
    """The next step uses the same connection."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)])) as server, Client.register(server.url) as client:
            # Connected before the first timeout, however slow the machine is.
            assert await take(client, 1) == ["e:1"]
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await take(client, 1)
            assert (len(server.requests), server.open) == (1, 1)

    run(scenario)


# resuming


@every_transport
@pytest.mark.parametrize("then", ["end", "cut"])
def test_client_resumes_after_the_last_window(waits: list[Any], transport: Any, then: Any) -> None:
    """Whether the stream ended or broke, the next one starts after the last id, and no window is yielded twice."""

    async def scenario() -> None:
        acts = [Send([window(1), window(2)], then), Send([window(2), window(3)], then), Send([window(4)])]
        if transport == "poll" and then == "cut":
            acts = [Send([window(1), window(2)]), Send([], "cut"), Send([window(2), window(3)]), Send([window(4)])]
        async with Scripted(*acts) as server, Client.register(server.url, transport=transport) as client:
            assert await take(client, 4) == ["e:1", "e:2", "e:3", "e:4"]
            assert list(dict.fromkeys(server.afters)) == ["", "e:2", "e:3"]
            assert len(server.registered) == 1

    run(scenario)


def test_incomplete_event_is_requested_again(waits: list[Any]) -> None:
    """Half a window does not change the last id: the next connection gets all of it."""

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


def test_id_without_an_event_is_resumed_from(waits: list[Any]) -> None:
    """The server sends where the stream starts: a client that was cut off before its first window misses none."""

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
def test_silent_connection_is_replaced(monkeypatch: pytest.MonkeyPatch, waits: list[Any], transport: Any) -> None:
    """After SILENT_S without a heartbeat the client reconnects: the server may be gone."""
    monkeypatch.setattr(transports, "SILENT_S", 0.05)
    monkeypatch.setattr(transports, "_STREAM_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_read=0.05))

    async def scenario() -> None:
        acts = (Send([window(1)]), Send([]), Send([window(2)]))
        async with Scripted(*acts) as server, Client.register(server.url, transport=transport) as client:
            assert await take(client, 2) == ["e:1", "e:2"]
            assert server.afters[-1] == "e:1"

    run(scenario)


def test_windows_are_yielded_once_and_in_order(waits: list[Any]) -> None:
    """Repeated and earlier ones are dropped, a new epoch starts over; `received` yields all of them."""
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
def test_on_reset_is_called_at_the_gap(waits: list[Any], transport: Any) -> None:
    """It is called between the last window before the gap and the first one after it."""
    seen: list[str | Reset] = []

    async def scenario() -> None:
        acts = [Send([window(1)], "end"), Send([reset("too old", "e:1", "e:7"), window(8)], "end"), Send([window(9)])]
        async with (
            Scripted(*acts) as server,
            Client.register(server.url, transport=transport, on_reset=seen.append) as client,
        ):
            async for got in client:
                seen.append(got.event_id)
                if got.window == 9:
                    break
            assert server.afters[-1] == "e:8"

    run(scenario)
    assert seen == ["e:1", Reset("too old", "e:1", "e:7"), "e:8", "e:9"]


def test_reset_is_logged_by_default_and_a_raising_on_reset_ends_the_loop(
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
def test_refused_id_is_forgotten_and_reported_as_a_reset(waits: list[Any], transport: Any) -> None:
    """After 409 the client starts over at once and reports a possible gap; aiohttp hides why a handshake failed."""
    resets: list[Reset] = []

    async def scenario() -> None:
        acts = [Send([window(1)], "end"), Refuse(409, "another epoch's"), Send([window(0, "f")])]
        async with (
            Scripted(*acts) as server,
            Client.register(server.url, transport=transport, on_reset=resets.append) as client,
        ):
            assert await take(client, 2) == ["e:1", "f:0"]
            assert [after for after in server.afters if after != "f:0"] == ["", "e:1", ""]

    run(scenario)
    (reset,) = resets
    assert (reset.last_event_id, reset.resumes_after) == ("e:1", "")
    assert ("status 409" if transport == "websocket" else "another epoch's") in reset.reason
    assert len(waits) == (transport != "poll")


# refusals


@pytest.mark.parametrize("status", [400, 401, 403, 405])
@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_permanent_refusal_raises_the_servers_detail(status: int, transport: Any) -> None:
    """The client does not repeat the request; the error names the server and the status."""

    async def scenario() -> None:
        async with Scripted(Refuse(status, "this will not do")) as server:
            async with Client.register(server.url, transport=transport) as client:
                with pytest.raises(
                    ClientError, match=rf"status {status} .*: this will not do \(GET {server.subscriber_url}/"
                ) as raised:
                    await take(client, 1)
            assert raised.value.status == status
            assert server.deleted == ["c1"]
            assert len(server.requests) == 1

    run(scenario)


@pytest.mark.parametrize("close", [(1000, "replaced"), (1008, "a client sends no message")])
def test_socket_that_is_closed_as_final_raises_the_reason(close: tuple[int, str]) -> None:
    """Two programs with one token would otherwise end each other's socket without limit."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)], "end", close=close)) as server:
            client = Client.register(server.url, transport="websocket")
            with pytest.raises(ClientError, match=f"closed the socket with {close[0]}: {close[1]}"):
                await take(client, 2)
            assert len(server.requests) == 1

    run(scenario)


def test_socket_of_a_deleted_client_ends_the_iteration() -> None:
    """As the answer 204 does on the other transports: no request follows."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)], "end", close=(1000, "deleted"))) as server:
            client = Client.register(server.url, transport="websocket")
            assert [got.event_id async for got in client] == ["e:1"]
            assert (len(server.requests), len(server.registered)) == (1, 1)

    run(scenario)


def test_permanent_websocket_refusal_raises() -> None:
    """A failed handshake gives only the status."""

    async def scenario() -> None:
        async with Scripted(Refuse(403)) as server, Client.register(server.url, transport="websocket") as client:
            with pytest.raises(ClientError, match="403 instead of a WebSocket"):
                await take(client, 1)

    run(scenario)


def test_answer_with_another_content_type_raises() -> None:
    """A captive portal answers 200 with a page."""

    async def scenario() -> None:
        act = Send([], "end", content_type="text/html")
        async with Scripted(act) as server, Client.register(server.url) as client:
            with pytest.raises(ClientError, match="200 instead of 200 and text/event-stream"):
                await take(client, 1)

    run(scenario)


@pytest.mark.parametrize("status", [422, 429, 503])
def test_refused_registration_raises_at_once(status: int) -> None:
    """The error has the server's detail and Retry-After."""

    async def scenario() -> None:
        async with Scripted() as server:
            server.registering.append(Refuse(status, "nobody is live", {"Retry-After": "7"}))
            with pytest.raises(ClientError, match=f"{status} instead of 201: nobody is live") as raised:
                async with Client.register(server.url):
                    raise AssertionError("it was entered")
            assert raised.value.retry_after_s == 7

    run(scenario)


def test_wrong_registry_address_raises_with_the_remedy() -> None:
    """A free port, a malformed URL and another service: each error names the address and the remedy."""

    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(ClientError, match=f"^connection refused: no answer from {url}. Check that the chain"):
                await take(Client.register(url), 1)
        for nonsense in ("127.0.0.1:8080", "http://", ""):
            with pytest.raises(ClientError, match="give it as http://host:port"):
                await take(Client.register(nonsense), 1)
        async with Scripted() as server:
            # A redirect of the registration itself is not followed.
            server.registering.append(Refuse(308, headers={"Location": f"{server.url}/clients"}))
            with pytest.raises(ClientError, match="308 instead of 201"):
                await take(Client.register(server.url), 1)
            server.registering.append(Refuse(201, "hello"))
            with pytest.raises(ClientError, match=r"without a registration .*client_id"):
                await take(Client.register(server.url), 1)

    run(scenario)


def test_unknown_transport_raises_setting_error() -> None:
    """It raises before any connection."""
    with pytest.raises(SettingError, match="'pigeon': choose one of sse, websocket, poll"):
        Client.register("http://127.0.0.1:1", transport="pigeon")  # type: ignore[arg-type]


@every_transport
def test_unreadable_window_raises_message_error(transport: Any) -> None:
    """The client neither skips it nor guesses."""

    async def scenario() -> None:
        act = Send([("e:1", "window", b'{"epoch": 5}')])
        async with Scripted(act) as server, Client.register(server.url, transport=transport) as client:
            with pytest.raises(MessageError, match="not a Window"):
                await take(client, 1)

    run(scenario)


# deleted registrations


def test_lost_registration_is_made_again(waits: list[Any]) -> None:
    """The new one resumes after the last window, and is the one that ends at exit."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)], "end"), Send([window(2)])) as server:
            async with Client.register(server.url, "7") as client:
                assert await take(client, 1) == ["e:1"]
                server.redirecting.append(Refuse(404, "no such client"))
                # It tries again until the registry accepts it.
                server.registering.append(Refuse(503, "nobody is live", {"Retry-After": "2"}))
                assert await take(client, 1) == ["e:2"]
                assert client.credentials.client_id == "c2"
            assert server.registered == [{"cluster": "7"}] * 2
            assert server.afters == ["", "e:1"]
            assert server.deleted == ["c2"]

    run(scenario)
    assert [wait[3] for wait in waits] == [0, 0, 2]


def test_404_from_a_subscriber_is_tried_again(waits: list[Any]) -> None:
    """Only the registry knows whether a client is registered."""

    async def scenario() -> None:
        async with Scripted(Refuse(404), Refuse(404), Send([window(1)])) as server:
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:1"]
            assert len(server.registered) == 1

    run(scenario)


@pytest.mark.parametrize("by", ["registry", "subscriber"])
def test_204_ends_the_iteration(waits: list[Any], by: str) -> None:
    """A server answers 204 to a deleted client: the loop ends, and no request follows."""

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
                        server.redirecting.append(Refuse(204))
                assert [got.event_id async for got in client] == []
            assert ids == ["e:1"]
            assert server.deleted == []

    run(scenario)


# waiting


def test_waits_use_retry_and_retry_after_and_reset_with_a_window(waits: list[Any]) -> None:
    """The server's `retry` is the base, Retry-After is added; a window resets the count of failures.

    After a redirect the waits stay short: the registry soon redirects to another subscriber.
    """

    async def scenario() -> None:
        acts = [
            *(Refuse(503), Refuse(503, headers={"Retry-After": "9"})),
            *(Send([], "end", retry_ms=250), Send([window(1)], "end"), Refuse(500), Send([window(2)])),
        ]
        async with Scripted(*acts) as server:
            server.redirecting.extend([Refuse(500), Refuse(503, headers={"Retry-After": "3"})])
            async with Client.register(server.url) as client:
                assert await take(client, 2) == ["e:1", "e:2"]

    run(scenario)
    redirected, refused = REDIRECTED_WAIT_MAX_S, WAIT_MAX_S
    assert waits == [
        *((0, 1.0, refused, 0.0), (1, 1.0, refused, 3.0), (2, 1.0, redirected, 0.0), (3, 1.0, redirected, 9.0)),
        *((4, 0.25, redirected, 0.0), (0, 0.25, redirected, 0.0), (1, 0.25, redirected, 0.0)),
    ]


def test_outage_is_logged_as_one_warning(waits: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """One lost connection is normal; one that does not recover is not."""

    async def scenario() -> None:
        acts = [*[Refuse(500, "broken")] * 9, Send([window(1)])]
        async with Scripted(*acts) as server, Client.register(server.url) as client:
            assert await take(client, 1) == ["e:1"]

    run(scenario)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "broken" in warnings[0]
    assert f"; attempt {WARN_AT_FAILURE} in" in warnings[0]


def test_early_empty_poll_answer_waits_before_the_next(waits: list[Any]) -> None:
    """An early answer without events means that the server is about to end the stream."""

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
def test_wait_lies_between_retry_after_and_the_bound(
    failures: int, base_s: float, cap_s: float, retry_after: float, drawn: float
) -> None:
    """Full jitter: from Retry-After, evenly up to the bound, which doubles from the base to the cap."""
    bound_s = backoff.bound_s(failures, base_s, cap_s)
    wait_s = backoff.wait_s(failures, base_s, cap_s, retry_after, lambda: drawn)
    assert retry_after <= wait_s <= retry_after + bound_s
    assert backoff.wait_s(failures, base_s, cap_s, retry_after, lambda: 0.0) == retry_after
    assert 0 < bound_s <= max(cap_s, base_s, backoff.BASE_MIN_S)
    assert bound_s >= min(base_s, cap_s)


def test_backoff_base_and_cap() -> None:
    """1, 2, 4, 8 and so on; a base above the cap stays, one of 0 is raised."""
    assert [backoff.bound_s(n, 1.0, 30.0) for n in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.bound_s(5, 60.0, 30.0) == 60
    assert backoff.bound_s(0, 0.0, 30.0) == backoff.BASE_MIN_S


def test_waits_of_many_clients_spread_over_the_bound() -> None:
    """A thousand clients that were cut off together return over the whole of the first second."""
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
def test_retry_after_seconds_dates_and_malformed_values(value: str | None, expected_s: float) -> None:
    """Seconds and future dates count; past dates and malformed values are 0."""
    assert retry_after_s(value, now_s=1000.0) == expected_s


# ending


@every_transport
@pytest.mark.parametrize("moment", ["reading", "waiting", "connecting"])
def test_cancelled_client_leaves_neither_task_nor_socket(transport: Any, moment: str) -> None:
    """In each state its registration ends, its socket closes and no task is left (see `run`)."""

    async def scenario() -> None:
        acts: list[Send | Refuse] = [Send([])]
        if moment == "waiting":
            acts = [Refuse(503, headers={"Retry-After": "1000"})]
        async with Scripted(*acts) as server, asyncio.TaskGroup() as tasks:
            if moment == "connecting":
                server._redirect = hang  # type: ignore[method-assign]
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
def test_exit_ends_the_loop_of_another_task(transport: Any) -> None:
    """The loop ends without an error."""

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


def test_failed_unregistration_is_logged_and_does_not_raise(caplog: pytest.LogCaptureFixture) -> None:
    """A registration that the registry has already lost is not even logged."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)]), Send([window(2)])) as server:
            server.deleting.extend([Refuse(503, "Kafka is out"), Refuse(404)])
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:1"]
            async with Client.register(server.url) as client:
                assert await take(client, 1) == ["e:2"]

    run(scenario)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "Kafka is out" in warnings[0]


def test_client_entered_again_resumes() -> None:
    """It registers again, and misses no window in between."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)]), Send([window(2)])) as server:
            client = Client.register(server.url)
            for expected in ("e:1", "e:2"):
                async with client:
                    assert await take(client, 1) == [expected]
                with pytest.raises(ClientError, match="not registered"):
                    _ = client.credentials
            assert server.afters == ["", "e:1"]
            assert server.deleted == ["c1", "c2"]

    run(scenario)


# the command


def test_command_prints_lines_and_unregisters_on_sigterm() -> None:
    """Each window is printed as a line of JSON as soon as it arrives; the registration ends with the process."""

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


def test_command_ends_quietly_on_a_broken_pipe() -> None:
    """`… | head -1` is not an error, and the registration ends."""

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


def test_command_prints_one_line_for_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, and status 1."""
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        with pytest.raises(SystemExit, match=r"pipeline\.client: the registry's URL is 'nowhere'"):
            client_main.main(["nowhere"])
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
