"""The SSE stream from outside, as the WHATWG HTML standard (section 9.2) and HTTP (RFC 9110, 9112) have it.

The checks speak HTTP and nothing else; only the fixtures know what stands behind it: a subscriber with its topics in
memory, and the whole chain.
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
from tests.blackbox_sse import DEADLINE_S, Event, Exchange, Parser, Place, Source

# One of the basic plane, one beyond it, several joined, one with a variation selector, a pair of letters.
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

    def client(self) -> Place:
        """Put a registration into the topic."""
        name = f"client-{next(self._clients)}"
        self._tell(name, Registration(name, token_sha256(f"token-{name}"), "1", "1", 1), +1)
        return Place(HOST, self._port, f"/clients/{name}/stream", f"token-{name}")

    def emit(self, emoji: str = "😂") -> None:
        """Put a window into the feed."""
        window = Window("00000000-epoch", next(self._windows), 0, 0, {}, 38, [TypeCount(emoji, 38, 4)])
        self._writer.send(self._names.feed("1").name, encode(window))

    def delete(self, place: Place) -> None:
        """Put a tombstone into the topic."""
        self._tell(place.path.split("/")[2], None, -1)

    def _tell(self, name: str, registration: Registration | None, change: int) -> None:
        value = None if registration is None else encode(registration)
        self._writer.send(self._names.clients.name, value, name.encode())
        self._registered += change
        url = f"http://{HOST}:{self._port}/healthz"
        until(lambda: _json(url)["registered"] == self._registered)


class WholeChain:
    """A chain that is up: clients come by its registry, events by its ingest."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._registry, self._ingest = endpoints.registry, endpoints.ingest

    def client(self) -> Place:
        """Register, and follow the stable address to where the stream is."""
        client = _json(f"{self._registry}/clients", {})
        opener = urllib.request.build_opener(_StayHere)
        request = urllib.request.Request(client["stream_url"], headers={"Authorization": f"Bearer {client['token']}"})
        with pytest.raises(urllib.error.HTTPError) as raised:
            opener.open(request, timeout=DEADLINE_S)
        with raised.value as redirect:
            assert redirect.code == 307
            place = urlsplit(redirect.headers["Location"])
        assert place.hostname is not None
        assert place.port is not None
        return Place(place.hostname, place.port, place.path, client["token"])

    def emit(self, emoji: str = "😂") -> None:
        """React; the next window has it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _json(f"{self._ingest}/reactions", {"user_id": "conformance", "emoji_type": emoji, "timestamp": now})

    def delete(self, place: Place) -> None:
        """Leave, by the registry; the subscriber hears of it within a second."""
        path = place.path.removesuffix("/stream")
        headers = {"Authorization": f"Bearer {place.token}"}
        request = urllib.request.Request(self._registry + path, headers=headers, method="DELETE")
        urllib.request.urlopen(request, timeout=DEADLINE_S).close()


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Redirects are followed by hand, with the token."""


def _json(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def until(condition: Any) -> None:
    """Wait until `condition()` holds."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


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
        until(lambda: bus.tail(names.subscribers.name, 1))
        yield InMemory(bus, port)
    finally:
        stop.set()
        thread.join()


# For what costs the chain minutes (heartbeats, many windows) and is the subscriber's alone.
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
    """A client that was there all the time: what it got is what there was."""
    with Exchange(source.client()) as stream:
        stream.next_comment()
        yield stream


def emitted(source: Source, reference: Exchange, count: int) -> list[str]:
    """Have `count` more events sent, one after the other; the ids under which the reference got them."""
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
def test_the_checker_reads_the_standards_examples(stream: str, expected: list[tuple[str, str, str]]) -> None:
    """What the others are judged by gives what the standard says of its own examples, cut anywhere."""
    wire = stream.encode()
    for cut in range(len(wire) + 1):
        parser = Parser()
        assert parser.feed(wire[:cut]) + parser.feed(wire[cut:]) == [Event(*event) for event in expected]


# the answer


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", None])
def test_the_answer_is_an_event_stream_that_nobody_keeps(source: Source, accept: str | None) -> None:
    """200, the media type of section 9.2.5, and nothing that would have it cached, compressed or measured."""
    with Exchange(source.client(), headers={"Accept": accept, "Accept-Encoding": "gzip, deflate, br"}) as stream:
        assert stream.status == 200
        media_type, *parameters = [part.strip().lower() for part in (stream.header("Content-Type") or "").split(";")]
        assert media_type == "text/event-stream"
        # The one parameter there may be has one value there may be.
        assert parameters in ([], ["charset=utf-8"])
        assert {"no-store", "no-cache"} & {
            word.strip().lower() for word in (stream.header("Cache-Control") or "").split(",")
        }
        assert stream.header("Content-Length") is None
        assert stream.header("Content-Encoding") in (None, "identity")


def test_it_begins_before_there_is_an_event(source: Source) -> None:
    """Head and first bytes come at once: a client knows that it is connected without an event to tell it."""
    with Exchange(source.client()) as stream:
        stream.next_comment()
        assert stream.events == []
        assert stream.parser.between_events


def test_retry_says_how_long_to_wait(source: Source, reference: Exchange) -> None:
    """ASCII digits alone, before the first event, and a time that makes sense."""
    assert reference.parser.reconnection_time_ms is not None
    assert 100 <= reference.parser.reconnection_time_ms <= 60_000
    assert emitted(source, reference, 1)
    values = [line.partition(":")[2].removeprefix(" ") for line in reference.parser.lines if line.startswith("retry")]
    assert len(values) == 1
    assert values[0].isascii()
    assert values[0].isdigit()


@IN_MEMORY
def test_every_line_is_one_of_the_standards(source: Source, reference: Exchange) -> None:
    """Comments and the four fields; no BOM, no NUL, and a blank line after every block."""
    emitted(source, reference, 3)
    reference.next_comment()
    assert reference.parser.between_lines
    for line in reference.parser.lines:
        assert line == "" or line.startswith(":") or line.split(":")[0] in ("id", "event", "data", "retry"), line
    assert b"\xef\xbb\xbf" not in reference.body
    assert b"\0" not in reference.body
    # Mixed line ends are allowed, and a sign that something else wrote part of it.
    assert len(set(re.findall(rb"\r\n|\r|\n", reference.body))) == 1


def test_every_event_has_an_id_of_its_own_a_type_and_data(source: Source, reference: Exchange) -> None:
    """Ids differ and can be sent back in a header; data is one JSON object."""
    events = []
    for _ in range(3):
        source.emit()
        events.append(reference.next_event())
    ids = [event.last_event_id for event in events]
    assert len(set(ids)) == 3
    assert all(one.isascii() and one.isprintable() and one == one.strip() and one for one in ids)
    assert {event.type for event in events} == {"window"}
    assert all(isinstance(json.loads(event.data), dict) for event in events)


@IN_MEMORY
@pytest.mark.parametrize("emoji", EMOJI)
def test_emoji_come_through_whole(source: Source, reference: Exchange, emoji: str) -> None:
    """UTF-8 throughout (the parser is strict): what was sent is what is shown, code point by code point."""
    source.emit(emoji)
    event = reference.next_event()
    types = [reaction["emoji_type"] for reaction in json.loads(event.data)["reactions"]]
    assert types == [emoji]


def test_an_event_is_complete_when_it_comes(source: Source, reference: Exchange) -> None:
    """The blank line that dispatches it comes with it, not with the next one."""
    source.emit()
    reference.next_event()
    assert reference.parser.between_events


@IN_MEMORY
def test_comments_keep_it_alive_and_are_no_events(source: Source, reference: Exchange) -> None:
    """Between events there are signs of life, which neither dispatch anything nor move the last id."""
    (last,) = emitted(source, reference, 1)
    reference.next_comment()
    reference.next_comment()
    assert reference.events == []
    assert reference.parser.last_event_id == last


def test_http_1_0_gets_the_same_without_chunks(source: Source, reference: Exchange) -> None:
    """An old proxy in between is told where the stream ends by its end."""
    place = source.client()
    with Exchange(place, version="1.0") as old:
        old.next_comment()
        assert old.header("Transfer-Encoding") is None
        assert old.header("Content-Length") is None
        expected = emitted(source, reference, 2)
        assert old.next_ids(2) == expected
        source.delete(place)
        old.read_to_end()


def test_a_stream_that_is_over_ends_properly(source: Source, reference: Exchange) -> None:
    """The client hears that it is over, by the last chunk and not by a broken connection, and gets what was due."""
    place = source.client()
    with Exchange(place) as stream:
        stream.next_comment()
        expected = emitted(source, reference, 1)
        source.delete(place)
        stream.read_to_end()
        assert [event.last_event_id for event in stream.events] == expected
        assert stream.parser.between_events


# resuming


@IN_MEMORY
def test_last_event_id_replays_what_was_missed_once_and_in_order(source: Source, reference: Exchange) -> None:
    """After any id, everything after it and nothing else; then it goes on live."""
    ids = emitted(source, reference, 4)
    for place, last in enumerate(ids[:]):
        with Exchange(source.client(), last) as resumed:
            assert resumed.next_ids(len(ids) - place - 1) == ids[place + 1 :]
            # Whatever came on top would stand before this one.
            ids += emitted(source, reference, 1)
            assert resumed.next_ids(1) == ids[-1:]


def test_a_client_that_was_away_misses_nothing(source: Source, reference: Exchange) -> None:
    """It watches, is cut off without a word, comes back with its last id and has everything, again and again."""
    place, last, had, there_was = source.client(), None, [], []
    for _ in range(3):
        with Exchange(place, last) as stream:
            if last is None:
                stream.next_comment()
            else:
                had += stream.next_ids(1)
            there_was += emitted(source, reference, 1)
            had += stream.next_ids(1)
            last = stream.parser.last_event_id
        there_was += emitted(source, reference, 1)
    assert had == there_was[: len(had)]
    assert len(had) == len(there_was) - 1


def test_a_client_cut_off_before_its_first_event_misses_nothing(source: Source, reference: Exchange) -> None:
    """An id without data says where it begins: the standard has it dispatch nothing, and keep the id to resume by."""
    emitted(source, reference, 1)
    place = source.client()
    with Exchange(place) as stream:
        stream.next_comment()
        assert stream.events == []
        last = stream.parser.last_event_id
    missed = emitted(source, reference, 2)
    with Exchange(place, last) as resumed:
        assert resumed.next_ids(2) == missed


@IN_MEMORY
def test_a_connection_cut_at_any_byte_loses_and_doubles_nothing(source: Source, reference: Exchange) -> None:
    """Half an event was none: the last id is that of the last whole one, and from there on all comes again."""
    place = source.client()
    ids = emitted(source, reference, 3)
    with Exchange(place, ids[0]) as whole:
        assert whole.next_ids(2) == ids[1:]
        length = len(whole.body)
    for cut in {*range(0, length, 41), length - 1, length}:
        with Exchange(place, ids[0]) as torn:
            torn.cut_after(cut)
            had, last = [event.last_event_id for event in torn.events], torn.parser.last_event_id
        with Exchange(place, last) as resumed:
            rest = resumed.next_ids(2 - len(had))
            assert had + rest == ids[1:], cut


def test_an_empty_last_event_id_is_none(source: Source, reference: Exchange) -> None:
    """Nothing is replayed to a client that has had nothing."""
    emitted(source, reference, 1)
    with Exchange(source.client(), "") as stream:
        stream.next_comment()
        expected = emitted(source, reference, 1)
        assert stream.next_ids(1) == expected


def test_header_names_are_read_in_any_case(source: Source, reference: Exchange) -> None:
    """HTTP/2 in between writes them small (RFC 9110, section 5.1)."""
    ids = emitted(source, reference, 2)
    place = source.client()
    small = {"Authorization": None, "authorization": f"bearer {place.token}", "last-event-id": ids[0]}
    with Exchange(place, headers=small) as stream:
        assert stream.next_ids(1) == ids[1:]


@pytest.mark.parametrize("forged", ["nonsense", "a:b", "a:-1", "a: 1", ":1", "e:٣", "\udcff:1", "x" * 5000 + ":1"])
def test_an_id_that_no_server_gave_is_refused(source: Source, forged: str) -> None:
    """400 and a problem document (RFC 9457). The standard sends ids as UTF-8; what is none can come all the same."""
    with Exchange(source.client(), forged) as refused:
        assert refused.status == 400
        problem(refused)


def test_an_id_of_another_epoch_or_of_the_future_is_told_of(source: Source, reference: Exchange) -> None:
    """By a refusal or by a `reset`, and never by a stream that looks as if nothing were amiss."""
    (last,) = emitted(source, reference, 1)
    epoch, _, number = last.rpartition(":")
    for unknown in (f"another-{epoch}:{number}", f"{epoch}:{int(number) + 1000}", "ü😂:1"):
        with Exchange(source.client(), unknown) as stream:
            if stream.status != 200:
                assert stream.status == 409
                problem(stream)
            else:
                assert stream.next_event().type == "reset"


def test_a_deleted_client_is_told_not_to_reconnect(source: Source, reference: Exchange) -> None:
    """204 is how a server tells an EventSource to stop (section 9.2.1); it has no body."""
    place = source.client()
    with Exchange(place) as stream:
        stream.next_comment()
        (last,) = emitted(source, reference, 1)
        source.delete(place)
        stream.read_to_end()
    with Exchange(place, last) as again:
        assert again.status == 204
        assert again.read_to_end() == b""


def test_a_second_connection_of_a_client_ends_the_first(source: Source, reference: Exchange) -> None:
    """The first may hang in a dead network: it ends properly, and the second has everything."""
    place = source.client()
    with Exchange(place) as first, Exchange(place) as second:
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
def test_without_its_token_there_is_no_stream(source: Source, headers: dict[str, str | None], query: str) -> None:
    """401 says how to do it (RFC 9110, section 11.6.1); what stands in the URL is no token."""
    place = source.client()
    with Exchange(place, headers=headers, query=query.format(token=place.token)) as refused:
        assert refused.status == 401
        assert (refused.header("WWW-Authenticate") or "").split()[0] == "Bearer"
        problem(refused)


def test_anothers_token_and_an_unknown_client_are_refused(source: Source) -> None:
    """403 and 404: an EventSource does not come back on either."""
    mine, other = source.client(), source.client()
    with Exchange(mine, headers={"Authorization": f"Bearer {other.token}"}) as refused:
        assert refused.status == 403
        problem(refused)
    stranger = Place(mine.host, mine.port, "/clients/nobody/stream", "token")
    with Exchange(stranger) as refused:
        assert refused.status == 404
        problem(refused)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
def test_another_method_is_answered_and_named(source: Source, method: str) -> None:
    """405 with what is allowed (RFC 9110, section 15.5.6), at once: no method opens a stream but GET."""
    with Exchange(source.client(), method=method, headers={"Connection": "close"}) as refused:
        assert refused.status == 405
        assert "GET" in [word.strip() for word in (refused.header("Allow") or "").split(",")]
        if method != "HEAD":
            problem(refused)
        # Least of all does a HEAD have a body, whatever its Content-Length says (RFC 9112, section 6.3).
        assert refused.what_else() == b""


def problem(refused: Exchange) -> None:
    """A refusal is a problem document that names its status."""
    assert refused.header("Content-Type") == "application/problem+json"
    document = json.loads(refused.read_to_end())
    assert document["status"] == refused.status
    assert document["title"]
    assert document["detail"]
