"""The SSE stream conforms to the WHATWG HTML standard (section 9.2) and to HTTP (RFC 9110, 9112).

The checks use HTTP only; the fixtures start the server: a subscriber with its topics in memory, or the whole chain.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from experiments.run.chain import Endpoints
from pipeline import lifecycle
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.messages import Registration, TypeCount, Window, encode
from pipeline.settings import Settings
from pipeline.subscriber.process import fastest_loop
from pipeline.subscriber.server import serve
from pipeline.tokens import token_sha256
from tests.blackbox_sse import DEADLINE_S, Event, Exchange, Parser, Source, StreamAddress
from tests.harness.waiting import until

# In the basic plane, beyond it, several joined, with a variation selector, a pair of regional indicators.
EMOJI = ("☕", "😂", "👩‍🚀", "❤️", "🇮🇳")
HOST = "127.0.0.1"


class InMemory:
    """A subscriber whose topics are in memory, in a thread of this process."""

    def __init__(self, bus: MemoryBus, port: int) -> None:
        self._bus, self._port = bus, port
        self._names = topics(Settings())
        self._writer = bus.writer()
        self._windows, self._clients = itertools.count(), itertools.count()
        self._registered = 0

    def client(self) -> StreamAddress:
        """Put a registration into the topic."""
        name = f"client-{next(self._clients)}"
        self._write(name, Registration(name, token_sha256(f"token-{name}"), "1", "1", 1), +1)
        return StreamAddress(HOST, self._port, f"/clients/{name}/stream", f"token-{name}")

    def emit(self, emoji: str = "😂") -> None:
        """Put a window into the feed."""
        number = next(self._windows)
        offsets = {"emoji-events-0": (number, number)}
        window = Window("00000000-epoch", number, 0, 0, offsets, 38, [TypeCount(emoji, 38, 4)])
        self._writer.send(self._names.feed("1").name, encode(window))

    def delete(self, address: StreamAddress) -> None:
        """Put a tombstone into the topic."""
        self._write(address.path.split("/")[2], None, -1)

    def _write(self, name: str, registration: Registration | None, change: int) -> None:
        value = None if registration is None else encode(registration)
        self._writer.send(self._names.clients.name, value, name.encode())
        self._registered += change
        url = f"http://{HOST}:{self._port}/healthz"
        until(lambda: _json(url)["registered"] == self._registered, "the subscriber has the registration")


class WholeChain:
    """A running chain: clients register at its registry, events come from its ingest."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._registry, self._ingest = endpoints.registry, endpoints.ingest

    def client(self) -> StreamAddress:
        """Register, and follow the redirect from the stable address to the stream."""
        client = _json(f"{self._registry}/clients", {})
        opener = urllib.request.build_opener(_NoRedirect)
        request = urllib.request.Request(client["stream_url"], headers={"Authorization": f"Bearer {client['token']}"})
        with pytest.raises(urllib.error.HTTPError) as raised:
            opener.open(request, timeout=DEADLINE_S)
        with raised.value as redirect:
            assert redirect.code == 307
            address = urlsplit(redirect.headers["Location"])
        assert address.hostname is not None
        assert address.port is not None
        return StreamAddress(address.hostname, address.port, address.path, client["token"])

    def emit(self, emoji: str = "😂") -> None:
        """Post a reaction; the next window contains it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _json(f"{self._ingest}/reactions", {"user_id": "conformance", "emoji_type": emoji, "timestamp": now})

    def delete(self, address: StreamAddress) -> None:
        """Unregister at the registry; the subscriber reads that within a second."""
        path = address.path.removesuffix("/stream")
        headers = {"Authorization": f"Bearer {address.token}"}
        request = urllib.request.Request(self._registry + path, headers=headers, method="DELETE")
        urllib.request.urlopen(request, timeout=DEADLINE_S).close()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Do not follow a redirect: the caller does, with the token."""


def _json(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)


@contextmanager
def subscriber_in_memory() -> Iterator[Source]:
    """Run a subscriber in a thread."""
    bus, values = MemoryBus(), Settings().replace(heartbeat_s=0.5)
    names = topics(values)
    bus.ensure(names.clients, names.subscribers, names.feed("1"))
    port, stop = lifecycle.claim_port(HOST, 0, "subscriber_port"), threading.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.run(serve(values, port, bus, bus, stop, patience_s=0.5))

    thread = threading.Thread(target=run, name="subscriber")
    thread.start()
    try:
        until(lambda: bus.tail(names.subscribers.name, 1), "the subscriber has announced itself")
        yield InMemory(bus, port)
    finally:
        stop.set()
        thread.join()


# For checks that would take the chain minutes (heartbeats, many windows) and concern the subscriber alone.
IN_MEMORY = pytest.mark.parametrize("source", ["memory"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["memory", pytest.param("chain", marks=pytest.mark.integration)])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """The server under test."""
    if request.param == "memory":
        with subscriber_in_memory() as memory:
            yield memory
    else:
        yield WholeChain(request.getfixturevalue("two_subscribers"))


@pytest.fixture
def reference(source: Source) -> Iterator[Exchange]:
    """A client that is connected throughout: it receives every event."""
    with Exchange(source.client()) as stream:
        stream.next_comment()
        yield stream


def emitted(source: Source, reference: Exchange, count: int) -> list[str]:
    """Send `count` more events, one after the other; return their ids, from the reference."""
    ids = []
    for _ in range(count):
        source.emit()
        ids.append(reference.next_event().last_event_id)
    return ids


# the checker itself


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
        ),
        ("data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        ("data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
        ("event: add\ndata: 73\n\nevent: remove\r\ndata: 21\r\n\r\n", [("add", "73", ""), ("remove", "21", "")]),
        ("\ufeffdata: a\r\rdata: b\r\n\r\n", [("message", "a", ""), ("message", "b", "")]),
        ("id: 7\n\n: no data, no event\n\ndata: x\n\n", [("message", "x", "7")]),
    ],
)
def test_checker_parses_the_standards_examples(stream: str, expected: list[tuple[str, str, str]]) -> None:
    """The parser of these tests gives the standard's results for the standard's examples, cut anywhere."""
    wire = stream.encode()
    for cut in range(len(wire) + 1):
        parser = Parser()
        assert parser.feed(wire[:cut]) + parser.feed(wire[cut:]) == [Event(*event) for event in expected]


# the answer


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", None])
def test_answer_is_an_uncached_event_stream(source: Source, accept: str | None) -> None:
    """200, the media type of section 9.2.5, and neither caching, compression nor a length."""
    with Exchange(source.client(), headers={"Accept": accept, "Accept-Encoding": "gzip, deflate, br"}) as stream:
        assert stream.status == 200
        media_type, *parameters = [part.strip().lower() for part in (stream.header("Content-Type") or "").split(";")]
        assert media_type == "text/event-stream"
        # Only one parameter is allowed, with one value.
        assert parameters in ([], ["charset=utf-8"])
        assert {"no-store", "no-cache"} & {
            word.strip().lower() for word in (stream.header("Cache-Control") or "").split(",")
        }
        assert stream.header("Content-Length") is None
        assert stream.header("Content-Encoding") in (None, "identity")


def test_stream_starts_before_the_first_event(source: Source) -> None:
    """Head and first bytes arrive at once: so a client knows that it is connected."""
    with Exchange(source.client()) as stream:
        stream.next_comment()
        assert stream.events == []
        assert stream.parser.between_events


def test_retry_is_sent_once_and_sensible(source: Source, reference: Exchange) -> None:
    """ASCII digits alone, before the first event, between 0.1 and 60 seconds."""
    assert reference.parser.reconnection_time_ms is not None
    assert 100 <= reference.parser.reconnection_time_ms <= 60_000
    assert emitted(source, reference, 1)
    values = [line.partition(":")[2].removeprefix(" ") for line in reference.parser.lines if line.startswith("retry")]
    assert len(values) == 1
    assert values[0].isascii()
    assert values[0].isdigit()


@IN_MEMORY
def test_every_line_is_a_comment_or_a_standard_field(source: Source, reference: Exchange) -> None:
    """No BOM, no NUL, and a blank line after every block."""
    emitted(source, reference, 3)
    reference.next_comment()
    assert reference.parser.between_lines
    for line in reference.parser.lines:
        assert line == "" or line.startswith(":") or line.split(":")[0] in ("id", "event", "data", "retry"), line
    assert b"\xef\xbb\xbf" not in reference.body
    assert b"\0" not in reference.body
    # Mixed line ends are allowed, but a sign that other code wrote part of the stream.
    assert len(set(re.findall(rb"\r\n|\r|\n", reference.body))) == 1


def test_events_have_unique_ids_a_type_and_data(source: Source, reference: Exchange) -> None:
    """An id can be sent back in a header; data is one JSON object."""
    events = []
    for _ in range(3):
        source.emit()
        events.append(reference.next_event())
    ids = [event.last_event_id for event in events]
    assert len(set(ids)) == 3
    assert all(text.isascii() and text.isprintable() and text == text.strip() and text for text in ids)
    assert {event.type for event in events} == {"window"}
    assert all(isinstance(json.loads(event.data), dict) for event in events)


@IN_MEMORY
@pytest.mark.parametrize("emoji", EMOJI)
def test_emoji_arrive_unchanged(source: Source, reference: Exchange, emoji: str) -> None:
    """UTF-8 throughout (the parser is strict): the emoji is the same, code point by code point."""
    source.emit(emoji)
    event = reference.next_event()
    types = [reaction["emoji_type"] for reaction in json.loads(event.data)["reactions"]]
    assert types == [emoji]


def test_event_arrives_complete(source: Source, reference: Exchange) -> None:
    """The blank line that dispatches it arrives with it, not with the next event."""
    source.emit()
    reference.next_event()
    assert reference.parser.between_events


@IN_MEMORY
def test_heartbeat_comments_dispatch_no_event(source: Source, reference: Exchange) -> None:
    """Between events there are heartbeats, which neither dispatch an event nor change the last id."""
    (last,) = emitted(source, reference, 1)
    reference.next_comment()
    reference.next_comment()
    assert reference.events == []
    assert reference.parser.last_event_id == last


def test_http_1_0_gets_the_same_without_chunks(source: Source, reference: Exchange) -> None:
    """A proxy that speaks HTTP/1.0 recognises the end of the stream by the end of the connection."""
    address = source.client()
    with Exchange(address, version="1.0") as old:
        old.next_comment()
        assert old.header("Transfer-Encoding") is None
        assert old.header("Content-Length") is None
        expected = emitted(source, reference, 2)
        assert old.next_ids(2) == expected
        source.delete(address)
        old.read_to_end()


def test_ended_stream_ends_with_the_last_chunk(source: Source, reference: Exchange) -> None:
    """The connection does not break, and the client gets all events up to the end."""
    address = source.client()
    with Exchange(address) as stream:
        stream.next_comment()
        expected = emitted(source, reference, 1)
        source.delete(address)
        stream.read_to_end()
        assert [event.last_event_id for event in stream.events] == expected
        assert stream.parser.between_events


# resuming


@IN_MEMORY
def test_last_event_id_replays_missed_events_once_and_in_order(source: Source, reference: Exchange) -> None:
    """After any id, all later events and no others; then the stream continues live."""
    ids = emitted(source, reference, 4)
    for index, last in enumerate(ids[:]):
        with Exchange(source.client(), last) as resumed:
            assert resumed.next_ids(len(ids) - index - 1) == ids[index + 1 :]
            # A window sent twice would arrive before this one.
            ids += emitted(source, reference, 1)
            assert resumed.next_ids(1) == ids[-1:]


def test_reconnecting_client_misses_nothing(source: Source, reference: Exchange) -> None:
    """Its connection breaks, it returns with its last id and has every event, three times in a row."""
    address, last, received, sent = source.client(), None, [], []
    for _ in range(3):
        with Exchange(address, last) as stream:
            if last is None:
                stream.next_comment()
            else:
                received += stream.next_ids(1)
            sent += emitted(source, reference, 1)
            received += stream.next_ids(1)
            last = stream.parser.last_event_id
        sent += emitted(source, reference, 1)
    assert received == sent[: len(received)]
    assert len(received) == len(sent) - 1


def test_client_cut_off_before_its_first_event_misses_nothing(source: Source, reference: Exchange) -> None:
    """An id without data marks the stream's start: the standard dispatches no event for it and keeps the id."""
    emitted(source, reference, 1)
    address = source.client()
    with Exchange(address) as stream:
        stream.next_comment()
        assert stream.events == []
        last = stream.parser.last_event_id
    missed = emitted(source, reference, 2)
    with Exchange(address, last) as resumed:
        assert resumed.next_ids(2) == missed


@IN_MEMORY
def test_connection_cut_at_any_byte_loses_and_repeats_nothing(source: Source, reference: Exchange) -> None:
    """Half an event does not count: the last id is that of the last complete event, and the rest is sent again."""
    address = source.client()
    ids = emitted(source, reference, 3)
    with Exchange(address, ids[0]) as whole:
        assert whole.next_ids(2) == ids[1:]
        length = len(whole.body)
    for cut in {*range(0, length, 41), length - 1, length}:
        with Exchange(address, ids[0]) as torn:
            torn.cut_after(cut)
            received, last = [event.last_event_id for event in torn.events], torn.parser.last_event_id
        with Exchange(address, last) as resumed:
            rest = resumed.next_ids(2 - len(received))
            assert received + rest == ids[1:], cut


def test_empty_last_event_id_replays_nothing(source: Source, reference: Exchange) -> None:
    """A client without an id starts with the next event."""
    emitted(source, reference, 1)
    with Exchange(source.client(), "") as stream:
        stream.next_comment()
        expected = emitted(source, reference, 1)
        assert stream.next_ids(1) == expected


def test_header_names_are_case_insensitive(source: Source, reference: Exchange) -> None:
    """HTTP/2 proxies send them in lower case (RFC 9110, section 5.1)."""
    ids = emitted(source, reference, 2)
    address = source.client()
    small = {"Authorization": None, "authorization": f"bearer {address.token}", "last-event-id": ids[0]}
    with Exchange(address, headers=small) as stream:
        assert stream.next_ids(1) == ids[1:]


@pytest.mark.parametrize("forged", ["nonsense", "a:b", "a:-1", "a: 1", ":1", "e:٣", "\udcff:1", "x" * 5000 + ":1"])
def test_malformed_last_event_id_returns_400(source: Source, forged: str) -> None:
    """With a problem document (RFC 9457). The standard sends ids as UTF-8; other bytes can arrive all the same."""
    with Exchange(source.client(), forged) as refused:
        assert refused.status == 400
        problem(refused)


def test_unknown_last_event_id_returns_409_or_a_reset(source: Source, reference: Exchange) -> None:
    """Never a stream that seems complete."""
    (last,) = emitted(source, reference, 1)
    epoch, _, number = last.rpartition(":")
    for unknown in (f"another-{epoch}:{number}", f"{epoch}:{int(number) + 1000}", "ü😂:1"):
        with Exchange(source.client(), unknown) as stream:
            if stream.status != 200:
                assert stream.status == 409
                problem(stream)
            else:
                assert stream.next_event().type == "reset"


def test_deleted_client_gets_204(source: Source, reference: Exchange) -> None:
    """204 stops an EventSource (section 9.2.1); it has no body."""
    address = source.client()
    with Exchange(address) as stream:
        stream.next_comment()
        (last,) = emitted(source, reference, 1)
        source.delete(address)
        stream.read_to_end()
    with Exchange(address, last) as again:
        assert again.status == 204
        assert again.read_to_end() == b""


def test_second_connection_of_a_client_ends_the_first(source: Source, reference: Exchange) -> None:
    """The first may hang in a dead network: it ends properly, and the second has every event."""
    address = source.client()
    with Exchange(address) as first, Exchange(address) as second:
        second.next_comment()
        first.read_to_end()
        assert first.events == []
        expected = emitted(source, reference, 1)
        assert second.next_ids(1) == expected


# refusals


@pytest.mark.parametrize(
    ("headers", "query"),
    [({"Authorization": None}, ""), ({"Authorization": "Basic eDp5"}, ""), ({"Authorization": None}, "?token={token}")],
)
def test_missing_token_returns_401(source: Source, headers: dict[str, str | None], query: str) -> None:
    """With WWW-Authenticate (RFC 9110, section 11.6.1); a token in the URL counts as missing."""
    address = source.client()
    with Exchange(address, headers=headers, query=query.format(token=address.token)) as refused:
        assert refused.status == 401
        assert (refused.header("WWW-Authenticate") or "").split()[0] == "Bearer"
        problem(refused)


def test_wrong_token_returns_403_and_unknown_client_404(source: Source) -> None:
    """An EventSource does not reconnect after either."""
    mine, other = source.client(), source.client()
    with Exchange(mine, headers={"Authorization": f"Bearer {other.token}"}) as refused:
        assert refused.status == 403
        problem(refused)
    stranger = StreamAddress(mine.host, mine.port, "/clients/nobody/stream", "token")
    with Exchange(stranger) as refused:
        assert refused.status == 404
        problem(refused)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
def test_other_methods_return_405_with_allow(source: Source, method: str) -> None:
    """At once (RFC 9110, section 15.5.6): only GET opens a stream."""
    with Exchange(source.client(), method=method, headers={"Connection": "close"}) as refused:
        assert refused.status == 405
        assert "GET" in [word.strip() for word in (refused.header("Allow") or "").split(",")]
        if method != "HEAD":
            problem(refused)
        # An answer to HEAD has no body, whatever its Content-Length (RFC 9112, section 6.3).
        assert refused.read_after_answer() == b""


def problem(refused: Exchange) -> None:
    """Check that a refusal is a problem document that names its status."""
    assert refused.header("Content-Type") == "application/problem+json"
    document = json.loads(refused.read_to_end())
    assert document["status"] == refused.status
    assert document["title"]
    assert document["detail"]
