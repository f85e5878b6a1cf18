"""Runs a subscriber: reads its topics, announces it to the registry, and serves its clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

from aiohttp import web

from pipeline import cluster_routes, lifecycle, logs, settings
from pipeline.addresses import SubscriberId
from pipeline.bus.base import Bus, Record, Writer
from pipeline.bus.follower import Deliver, Follower
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.dead_letters import DeadLetters
from pipeline.errors import EmoStreamError
from pipeline.file_limit import raise_file_limit
from pipeline.hosts import base_url
from pipeline.messages import decode_window, encode
from pipeline.subscriber import state
from pipeline.subscriber.app import PATIENCE_S, create_app
from pipeline.subscriber.process import fastest_loop, shorten_switch_interval
from pipeline.subscriber.state import Subscriber

log = logs.get(__name__)

STAGE = "subscriber"
OPTIONS = (
    "cluster", "subscriber", "bootstrap_servers", "kafka_security_file", "feed_bootstrap_servers", "kafka_wait_s",
    "topic_prefix",
    "host", "subscriber_port", "subscriber_url", "client_queue_max", "connections_max", "clients_max",
    "heartbeat_s",
    "registry_url", "registry_port", "origins", "host_names", "log_level",
)  # fmt: skip

BACKLOG = 4096
ANNOUNCE_S = 1.0
SILENT_S = 30.0
"""A connection without a whole request is closed after this time, as at ingest and the registry."""
STOP_POLL_S = 0.1
# Open files besides streams: Kafka's sockets, epoll, logs, requests that are being refused.
SPARE_FILES = 200


def connections_limit(connections_max: int) -> int:
    """Raise the limit of open files; return how many streams fit in, at most `connections_max`."""
    files = raise_file_limit()
    limit = max(1, min(connections_max, files - SPARE_FILES))
    if limit < connections_max:
        log.info("fewer streams than connections_max", connections_max=limit, open_files_max=files)
    return limit


def announce(subscriber: Subscriber, writer: Writer, topic: str, stop: threading.Event) -> None:
    """Announce `subscriber` every second until `stop`, then remove it with a tombstone; for a thread."""
    key = subscriber.id.key.encode()
    failing = False
    while not stop.is_set():
        try:
            writer.send(topic, encode(subscriber.announcement()), key)
            writer.flush(ANNOUNCE_S)
            failing = False
        except Exception as error:
            # Whatever the error, the next attempt may succeed; one warning per outage.
            if not failing:
                log.warning("announcing failed", error=str(error))
            failing = True
        stop.wait(ANNOUNCE_S)
    try:
        writer.send(topic, None, key)
        writer.flush(ANNOUNCE_S)
    except EmoStreamError as error:
        log.warning("could not remove this subscriber from the registry", error=str(error))
    writer.close()


@asynccontextmanager
async def _announcing(subscriber: Subscriber, writer: Writer, topic: str) -> AsyncIterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=announce, args=(subscriber, writer, topic, stop), name="announce", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, 1.0)


@asynccontextmanager
async def _listening(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, keepalive_timeout=SILENT_S, shutdown_timeout=1.0
    )
    try:
        await runner.setup()
        await web.SockSite(runner, lifecycle.listening(host, port, "subscriber_port", BACKLOG), backlog=BACKLOG).start()
        yield
    finally:
        await runner.cleanup()


@contextmanager
def _following(bus: Bus, topic: str, fail: Callable[[BaseException], None]) -> Iterator[Follower]:
    follower = Follower(bus, topic, fail)
    try:
        yield follower
    finally:
        follower.close()


def _in_loop(deliver: Deliver, fail: Callable[[BaseException], None]) -> Deliver:
    """Return `deliver` for a follower's thread: it runs in the event loop, and its errors go to `fail`."""
    loop = asyncio.get_running_loop()

    def guarded(records: list[Record], received_ns: int) -> None:
        # The loop would log an error and continue: the rest of the records would be a silent gap.
        try:
            deliver(records, received_ns)
        except Exception as error:
            fail(error)

    return lambda records, received_ns: loop.call_soon_threadsafe(guarded, records, received_ns)


async def serve(
    values: settings.Settings,
    port: int,
    bus: Bus,
    feed_bus: Bus,
    stop: threading.Event,
    patience_s: float = PATIENCE_S,
) -> None:
    """Serve until `stop`. `bus` holds the registry's topics, `feed_bus` the cluster's feed; both exist.

    Raises the error with which a reader gave up.
    """
    names = topics(values)
    feed_topic = names.feed(values.cluster).name
    errors: list[BaseException] = []

    def fail(error: BaseException) -> None:
        errors.append(error)
        stop.set()

    connections_max = connections_limit(values.connections_max)
    (route,) = cluster_routes.join(bus, names, [values.cluster])
    url = base_url(values.subscriber_url, values.host, port)
    letters = DeadLetters(bus, names, SubscriberId(values.cluster, values.subscriber).stage)
    subscriber = Subscriber(values, url, from_offset=route.from_offset, letters=letters)
    app = create_app(
        subscriber.fanout,
        subscriber.tokens,
        subscriber.gate,
        subscriber.health,
        origins=values.page_rule(),
        connections_max=connections_max,
        heartbeat_s=values.heartbeat_s,
        patience_s=patience_s,
    )
    subscriber.meters.attach(app, connections_max)
    with (
        closing(letters),
        _following(bus, names.clients.name, fail) as registrations,
        _following(feed_bus, feed_topic, fail) as feed,
    ):
        # Both histories before the first connection: a client that resumes then gets the windows it missed.
        windows = feed.readable_history(state.RING_MAX, decode_window, subscriber.unreadable)
        first_offset = windows[0].offset if windows else max(feed_bus.ends(feed_topic).values())
        subscriber.take_history(windows, first_offset)
        subscriber.take_registrations(registrations.whole_history())
        subscriber.followed = (feed.turns, registrations.turns)
        async with _listening(app, values.host, port):
            feed.start(_in_loop(subscriber.take_feed, fail))
            registrations.start(_in_loop(subscriber.take_registrations, fail))
            # Innermost: it leaves the registry before the streams end, or their clients would be sent back here.
            async with _announcing(subscriber, bus.writer(), names.subscribers.name):
                log.info("serving", url=url, windows=subscriber.fanout.head, connections_max=connections_max)
                while not stop.is_set():
                    await asyncio.sleep(STOP_POLL_S)
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
    feed_bus = KafkaBus(values.feed_kafka, values.kafka_wait_s, setting=values.feed_setting)
    try:
        bus.ensure(names.clients, names.subscribers, names.dead_letters)
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
