"""The metrics of a subscriber."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec
from pipeline.messages import encode
from pipeline.metrics.exposition import PATH, bare_registry, expose
from pipeline.settings import Settings
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.metrics import StreamMeters
from pipeline.subscriber.state import Subscriber
from pipeline.tickets import TicketGate, TicketRefusal
from pipeline.tokens import Tokens
from tests.harness.stages.metrics import Samples, at, scraped, window


class EventSink:
    """A stream's connection that accepts data, or is full."""

    def __init__(self, full: bool = False) -> None:
        self.full = full

    def write(self, data: object) -> None:
        """Accept the data."""

    def is_full(self) -> bool:
        """Return whether it is full."""
        return self.full

    def abort(self) -> None:
        """Do nothing."""

    def stuck_s(self, now_s: float) -> float:
        """Return 0: it is never stuck."""
        return 0.0


def streams(queue_max: int = 2) -> tuple[Fanout, StreamMeters]:
    """Return a fan-out and its metrics."""
    fanout = Fanout(10, queue_max)
    return fanout, StreamMeters("subscriber-1-2", "1", "2", fanout, Tokens(), TicketGate("1/2", time.time_ns))


def test_streams_and_their_ends_are_counted() -> None:
    """Streams by transport, windows once per stream, and ends by reason."""
    fanout, meters = streams()
    gone, slow, twice, again, deleted = (
        Stream("gone", EventSink()),
        Stream("slow", EventSink(full=True)),
        Stream("twice", EventSink()),
        Stream("twice", EventSink(), "websocket"),
        Stream("deleted", EventSink(), "poll"),
    )
    for stream in (gone, slow, twice, again, deleted):
        fanout.join(stream, fanout.head)
    fanout.publish(window(0))
    fanout.leave(gone)
    fanout.end("deleted", "deleted")
    for number in (1, 2):
        fanout.publish(window(number))
    labels = {"cluster": "1", "subscriber": "2"}
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_subscriber_windows_sent_total", **labels) == 3 + 1 + 1
    assert at(seen, "emostream_subscriber_streams", transport="sse", **labels) == 0
    assert at(seen, "emostream_subscriber_streams", transport="websocket", **labels) == 1
    assert at(seen, "emostream_subscriber_streams_opened_total", transport="sse", **labels) == 3
    ended = {
        dict(sample_labels)["reason"]: count
        for (name, sample_labels), count in seen.items()
        if name == "emostream_subscriber_streams_ended_total"
    }
    assert ended == {"left": 1, "slow": 1, "stuck": 0, "replaced": 1, "deleted": 1, "shutdown": 0}
    assert at(seen, "emostream_subscriber_ring_windows", **labels) == 3


def test_replayed_windows_count_as_sent() -> None:
    """Windows from the ring count like live ones."""
    fanout, meters = streams(queue_max=5)
    for number in range(4):
        fanout.publish(window(number))
    fanout.join(Stream("x", EventSink()), 1)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_subscriber_windows_sent_total", cluster="1", subscriber="2") == 3


def test_refused_tickets_are_counted_by_reason() -> None:
    """Each reason begins at 0."""
    subscriber = Subscriber(Settings(), "http://s")
    with pytest.raises(TicketRefusal):
        subscriber.gate.redeem("nonsense", "x", "digest")
    seen = scraped(expose(bare_registry(subscriber.meters), "")[0])
    refused = {
        dict(labels)["reason"]: count
        for (name, labels), count in seen.items()
        if name == "emostream_subscriber_tickets_refused_total"
    }
    assert refused == {"malformed": 1, "client": 0, "subscriber": 0, "expired": 0, "used": 0}


def test_history_is_not_measured() -> None:
    """Windows that were in the feed before the start have no meaningful latency."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("feed"))
    for number in range(3):
        bus.writer().send("feed", encode(window(number)))
    subscriber = Subscriber(Settings(), "http://s")
    subscriber.take_feed(bus.tail("feed", 2), 1, live=False)
    bus.writer().send("feed", encode(window(3)))
    bus.writer().send("feed", b"nonsense")
    subscriber.take_feed(bus.tail("feed", 3), 1)
    seen = scraped(expose(bare_registry(subscriber.meters), "")[0])
    stage = "subscriber-1-1"
    assert at(seen, "emostream_windows_forwarded_total", stage=stage) == 1
    assert at(seen, "emostream_window_latency_seconds_count", stage=stage) == 1
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="duplicate") == 1
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="malformed") == 1
    assert at(seen, "emostream_subscriber_fanout_seconds_count", cluster="1", subscriber="1") == 1
    assert at(seen, "emostream_subscriber_ring_windows", cluster="1", subscriber="1") == 3


async def _refused_over_http() -> Samples:
    """Send an application requests that it refuses, then scrape it."""
    _, meters = streams()
    app = web.Application()
    meters.attach(app, streams_max=7)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/nothing")).status == 404
        assert (await client.post(PATH)).status == 405
        answer = await client.get(PATH)
        assert answer.content_type == "text/plain"
        return scraped(await answer.read())


def test_refused_requests_are_counted_by_status() -> None:
    """The limit on streams is exposed as well."""
    seen = asyncio.run(_refused_over_http())
    labels = {"cluster": "1", "subscriber": "2"}
    assert at(seen, "emostream_subscriber_requests_refused_total", status="404", **labels) == 1
    assert at(seen, "emostream_subscriber_requests_refused_total", status="405", **labels) == 1
    assert at(seen, "emostream_subscriber_requests_refused_total", status="503", **labels) == 0
    assert at(seen, "emostream_subscriber_streams_limit", **labels) == 7
