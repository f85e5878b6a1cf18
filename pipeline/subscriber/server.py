"""A subscriber: holds its clients' connections and gives each every window of its cluster's feed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import msgspec
from aiohttp import web

from pipeline import cluster_routes, lifecycle, logs, settings
from pipeline.addresses import SubscriberId, base_url
from pipeline.bus.base import Bus, Record, Writer
from pipeline.bus.follower import ALL, Deliver, Follower
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.records import keyed
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError, MessageError
from pipeline.messages import Announcement, HighWater, Hop, decode_registration, decode_window, encode
from pipeline.subscriber.app import PATIENCE_S, create_app
from pipeline.subscriber.fanout import Fanout
from pipeline.subscriber.metrics import StreamMeters
from pipeline.subscriber.process import fastest_loop, raise_file_limit, shorten_switch_interval
from pipeline.tokens import Tokens

log = logs.get(__name__)

STAGE = "subscriber"
OPTIONS = (
    "cluster", "subscriber", "bootstrap_servers", "feed_bootstrap_servers", "kafka_wait_s", "topic_prefix",
    "host", "subscriber_port", "subscriber_url", "client_queue_max", "connections_max", "heartbeat_s",
    "log_level",
)  # fmt: skip

# An hour of windows at 6 s: what a client can have replayed.
RING_MAX = 600
BACKLOG = 4096
ANNOUNCE_S = 1.0
HELD_SLOTS = 60
STOP_POLL_S = 0.1
# Descriptors that are no streams: Kafka's sockets, epoll, logs, requests being refused.
SPARE_FILES = 200


class Subscriber:
    """What a subscriber knows. Everything but `announcement` belongs to the event loop's thread."""

    def __init__(
        self,
        values: settings.Settings,
        url: str,
        clock_ns: Callable[[], int] = time.time_ns,
        from_offset: int = 0,
    ) -> None:
        self.place = SubscriberId(values.cluster, values.subscriber)
        self.url = url
        self.fanout = Fanout(RING_MAX, values.client_queue_max)
        self.tokens = Tokens()
        self._stage = self.place.stage
        self.meters = StreamMeters(self._stage, values.cluster, values.subscriber, self.fanout, self.tokens)
        self._clock_ns = clock_ns
        self._marks = HighWater()
        self._feed_offset: int | None = None
        self._announced = 0
        self._from_offset = from_offset
        # A cluster that was added later has no first windows.
        self.fanout.whole = from_offset == 0

    def take_feed(self, records: list[Record], received_ns: int, live: bool = True) -> None:
        """Publish what is new in `records` of the cluster's feed; what is not `live` is history, and not measured."""
        for record in records:
            self._feed_offset = record.offset
            try:
                window = decode_window(record.value)
            except MessageError as error:
                log.error("skipped a record that is no window", offset=record.offset, reason=str(error))
                self.meters.windows.dropped("malformed")
                continue
            # What came before the cluster was removed once and added again: between that and now lies a gap.
            if window.hops and window.hops[0].offset < self._from_offset:
                continue
            if not self._marks.is_new(window):
                log.info("dropped a window already forwarded", id=window.event_id)
                self.meters.windows.dropped("duplicate")
                continue
            self._marks.raise_to(window)
            hop = Hop(self._stage, record.offset, received_ns, self._clock_ns())
            began_s = time.perf_counter()
            try:
                self.fanout.publish(msgspec.structs.replace(window, hops=(*window.hops, hop)))
            except MessageError as error:
                log.error("skipped a window that cannot be sent", offset=record.offset, reason=str(error))
                self.meters.windows.dropped("unsendable")
                continue
            if live:
                self.meters.published(window, hop.sent_ns, time.perf_counter() - began_s)

    def take_registrations(self, records: list[Record], _received_ns: int = 0) -> None:
        """Learn tokens; the stream of a client that was removed, or has its place elsewhere now, ends."""
        for client_id, registration in keyed(records, decode_registration, "registration"):
            if registration is None:
                self.tokens.hear(client_id, None)
                self.fanout.end(client_id, "deleted")
                continue
            self.tokens.hear(client_id, registration.token_sha256)
            if (registration.cluster, registration.subscriber) != self.place:
                self.fanout.end(client_id, "moved")

    def announcement(self) -> Announcement:
        """This subscriber's sign of life."""
        newest = self.fanout.last_event_id
        self._announced += 1
        # One slot of the clients each second: the registry hears of every one once a minute.
        held = tuple(one for one in self.fanout.clients() if (hash(one) - self._announced) % HELD_SLOTS == 0)
        return Announcement(
            subscriber=self.place.subscriber,
            cluster=self.place.cluster,
            url=self.url,
            clients=len(self.fanout),
            announced_ns=self._clock_ns(),
            last_event_id=None if newest is None else str(newest),
            held=held,
        )

    def health(self) -> dict[str, object]:
        """What `GET /healthz` answers."""
        newest = self.fanout.last_event_id
        return {
            "status": "ok",
            "stage": self._stage,
            "clients": len(self.fanout),
            "registered": len(self.tokens),
            "last_event_id": None if newest is None else str(newest),
            "feed_offset": self._feed_offset,
            "cut_off": self.fanout.cut.total(),
        }


def announce(subscriber: Subscriber, writer: Writer, topic: str, stop: threading.Event) -> None:
    """Announce `subscriber` every second until `stop`, then take it out with a tombstone; for a thread."""
    key = subscriber.place.key.encode()
    out = False
    while not stop.is_set():
        try:
            writer.send(topic, encode(subscriber.announcement()), key)
            writer.flush(ANNOUNCE_S)
            out = False
        except Exception as error:
            # Whatever it is, the next second may do better; said once an outage.
            if not out:
                log.warning("announcing failed", error=str(error))
            out = True
        stop.wait(ANNOUNCE_S)
    try:
        writer.send(topic, None, key)
        writer.flush(ANNOUNCE_S)
    except EmoStreamError as error:
        log.warning("could not take this subscriber out", error=str(error))
    writer.close()


async def serve(
    values: settings.Settings,
    port: int,
    bus: Bus,
    feed_bus: Bus,
    stop: threading.Event,
    patience_s: float = PATIENCE_S,
) -> None:
    """Serve until `stop`. `bus` holds the registry's topics, `feed_bus` the cluster's feed; both exist.

    Raises what made a reader give up.
    """
    loop = asyncio.get_running_loop()
    names = topics(values)
    errors: list[BaseException] = []

    def failed(error: BaseException) -> None:
        errors.append(error)
        stop.set()

    def take(taker: Deliver, records: list[Record], received_ns: int) -> None:
        # The loop would log an error and go on, and the rest of the records would be a silent gap.
        try:
            taker(records, received_ns)
        except Exception as error:
            failed(error)

    files = raise_file_limit()
    connections_max = max(1, min(values.connections_max, files - SPARE_FILES))
    if connections_max < values.connections_max:
        log.info("fewer streams than connections_max", connections_max=connections_max, open_files_max=files)

    (route,) = cluster_routes.join(bus, names, [values.cluster])
    url = base_url(values.subscriber_url, values.host, port)
    subscriber = Subscriber(values, url, from_offset=route.from_offset)
    feed = Follower(feed_bus, names.feed(values.cluster).name, failed)
    registrations = Follower(bus, names.clients.name, failed)
    leaving = threading.Event()
    announcer = threading.Thread(
        target=announce,
        args=(subscriber, bus.writer(), names.subscribers.name, leaving),
        name="announce",
        daemon=True,
    )
    app = create_app(
        subscriber.fanout,
        subscriber.tokens,
        subscriber.health,
        connections_max=connections_max,
        heartbeat_s=values.heartbeat_s,
        patience_s=patience_s,
    )
    subscriber.meters.attach(app, connections_max)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, keepalive_timeout=75.0, shutdown_timeout=1.0
    )
    try:
        # Both histories before the first connection: a client that resumes finds what it missed.
        windows = feed.history(RING_MAX)
        subscriber.take_feed(windows, time.time_ns(), live=False)
        begins = windows[0].offset if windows else max(feed_bus.ends(names.feed(values.cluster).name).values())
        if begins > 0:
            # There were some before: the ring has no place for them, or retention has removed them.
            subscriber.fanout.whole = False
        subscriber.take_registrations(registrations.history(ALL))
        await runner.setup()
        await web.TCPSite(runner, values.host, port, backlog=BACKLOG).start()
        feed.start(lambda *batch: loop.call_soon_threadsafe(take, subscriber.take_feed, *batch))
        registrations.start(lambda *batch: loop.call_soon_threadsafe(take, subscriber.take_registrations, *batch))
        announcer.start()
        log.info("serving", url=subscriber.url, windows=subscriber.fanout.head, connections_max=connections_max)
        while not stop.is_set():
            await asyncio.sleep(STOP_POLL_S)
    finally:
        # Out of the registry before the streams end, or their clients would be sent back here.
        leaving.set()
        if announcer.ident is not None:
            await asyncio.to_thread(announcer.join, 1.0)
        await runner.cleanup()
        feed.close()
        registrations.close()
    log.info("stopped")
    if errors:
        raise errors[0]


def run(values: settings.Settings) -> None:
    """Serve one subscriber until SIGTERM."""
    shorten_switch_interval()
    stop = lifecycle.stop_event()
    port = lifecycle.claim_port(values.host, values.subscriber_port, "subscriber_port")
    names = topics(values)
    bus = KafkaBus(values.kafka, values.kafka_wait_s)
    feed_bus = KafkaBus(values.feed_kafka, values.kafka_wait_s)
    try:
        bus.ensure(names.clients, names.subscribers)
        feed_bus.ensure(names.feed(values.cluster))
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.run(serve(values, port, bus, feed_bus, stop))
    finally:
        bus.close()
        feed_bus.close()


def main() -> None:
    """`python -m pipeline.subscriber`."""
    values = settings.main("pipeline.subscriber", "Hold clients' connections and send them every window.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("pipeline.subscriber", lambda: run(values))
