"""Which stages of a chain are ready: at the start once a first window has passed through, later after each restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPException
from typing import NamedTuple

from pipeline import cluster_routes, direct_http, logs
from pipeline.addresses import SubscriberId
from pipeline.bus.base import Bus, Reader
from pipeline.bus.records import keyed, readable
from pipeline.bus.topics import topics
from pipeline.errors import KafkaUnreachableError
from pipeline.messages import Announcement, Window, decode_announcement, decode_window
from pipeline.settings import Settings
from pipeline.supervisor.plan import Stage

log = logs.get(__name__)

POLL_S = 0.1
# The children of a stage that died, such as ingest's workers, may answer for a moment longer.
BACK_AFTER_S = 1.0
# A Kafka that was there before is no stage of the plan, but has to answer as well.
KAFKA = Stage("kafka", "pipeline.broker")
# Of the stages that pass on windows, each module's predecessor.
AFTER = {
    "spark.job": "kafka",
    "pipeline.main_publisher": "spark",
    "pipeline.cluster_publisher": "main-publisher",
    "pipeline.subscriber": "cluster-publisher-{}",
}


class Death(NamedTuple):
    """When a stage died, by two clocks."""

    monotonic_s: float
    epoch_ns: int


class Lack(NamedTuple):
    """What a stage lacks to be ready, in words, and the stage without which it cannot have it."""

    what: str
    after: str


class Readiness:
    """Follows which stages are ready, and logs each that becomes ready or comes back.

    A stage that passes on windows is ready when it has passed on the first one, Kafka when it answers. Besides, a
    subscriber has to announce itself, and every other stage to answer `/healthz` at its URL in `urls` (name → URL).
    `started_s` is when the chain began to start, in the time of time.monotonic().
    `await_first_window` and `watch` run in one thread, the other methods in any.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Sequence[Stage],
        urls: Mapping[str, str],
        bus: Bus,
        feed_bus: Bus,
        started_s: float,
    ) -> None:
        self._started_s = started_s
        self._settings = settings
        self._names = topics(settings)
        self._urls = dict(urls)
        self._bus = bus
        self._feed_bus = feed_bus
        self._embedded = any(stage.name == KAFKA.name for stage in plan)
        self._waiting = {stage.name: stage for stage in (KAFKA, *plan)}
        self._expected = sorted(_subscriber(stage) for stage in plan if stage.module == "pipeline.subscriber")
        self._first: Window | None = None
        # The stages that have passed on the first window, or need not.
        self._passed = {stage.name for stage in plan if stage.module not in AFTER}
        self._were_ready: set[str] = set()
        self._deaths: dict[str, Death] = {}
        self._lock = threading.Lock()
        self._latest: dict[SubscriberId, Announcement] = {}
        self._announcements: Reader | None = None
        self._changed = threading.Event()

    def add(self, stage: Stage, urls: Mapping[str, str]) -> None:
        """Follow a stage that was added to the running chain, where the next window may be far away."""
        self._urls |= urls
        self._passed.add(stage.name)
        self._waiting[stage.name] = stage
        self._changed.set()

    def remove(self, name: str) -> None:
        """Follow a stage no longer."""
        self._waiting.pop(name, None)

    def died(self, stage: Stage) -> None:
        """Follow a stage that died until it is back."""
        with self._lock:
            self._deaths[stage.name] = Death(time.monotonic(), time.time_ns())
            self._waiting[stage.name] = stage
        self._changed.set()

    def await_first_window(self, stop: threading.Event, timeout_s: float) -> list[Announcement] | None:
        """Send a probe through the chain; return every subscriber's announcement once all stages are ready.

        The probe is a null record: it holds no reaction and adds to no count, but Spark runs a micro-batch for it.
        Returns None if `stop` is set first, or after `timeout_s`: then `lacking` says what is missing. Raises
        KafkaUnreachableError if a Kafka that is not a stage of this chain does not answer.
        """
        deadline_s = time.monotonic() + timeout_s
        windows: Reader | None = None
        with ExitStack() as stack:
            while self._waiting and not stop.is_set() and time.monotonic() < deadline_s:
                if windows is None:
                    windows = self._probed(stack)
                elif self._first is None:
                    found = readable(windows.poll(POLL_S), decode_window, "window")
                    self._first = next((window for _, window in found), None)
                if windows is not None:
                    self._look()
                stop.wait(POLL_S)
        self._release()
        return None if self._waiting else [self._latest[subscriber] for subscriber in self._expected]

    def watch(self, stop: threading.Event) -> None:
        """Follow stages that were added or died, until `stop`. For a daemon thread: it may wait for such a stage."""
        while not stop.is_set():
            if self._waiting:
                self._look()
                stop.wait(POLL_S)
            else:
                self._release()
                self._changed.wait()
                self._changed.clear()

    def has_own_kafka(self) -> bool:
        """Return whether Kafka is a stage of this chain, and ready."""
        return self._embedded and KAFKA.name in self._were_ready - set(self._waiting)

    def urls(self) -> dict[str, str]:
        """Return where each stage that is ready answers `/healthz`, by name."""
        # The URL of a subscriber may be that of a proxy.
        own = {} if self._settings.subscriber_url else {each.stage: found.url for each, found in self._latest.items()}
        ready = self._were_ready - set(self._waiting)
        return {name: url for name, url in {**self._urls, **own}.items() if url and name in ready}

    def lacking(self) -> dict[str, Lack]:
        """Return what each stage lacks that is not ready."""
        return {stage.name: self._lack(stage) for stage in list(self._waiting.values())}

    def _lack(self, stage: Stage) -> Lack:
        if stage.name == KAFKA.name:
            return Lack(f"does not answer at {self._settings.kafka}", "")
        if stage.module == "pipeline.subscriber" and self._announced_url(stage) is None:
            return Lack("has not announced itself", KAFKA.name)
        if stage.name not in self._passed:
            cluster = stage.arguments[1] if stage.module == "pipeline.subscriber" else ""
            return Lack("has not passed on a first window", AFTER[stage.module].format(cluster))
        return Lack(f"does not answer at {self._urls.get(stage.name)}/healthz", KAFKA.name)

    def _probed(self, stack: ExitStack) -> Reader | None:
        """Send the probe; return a reader of the windows from before it, or None if Kafka does not answer yet."""
        clusters = [str(cluster) for cluster in range(1, self._settings.clusters + 1)]
        names, feeds = self._names, [self._names.feed(cluster) for cluster in clusters]
        try:
            inputs = [names.cluster(cluster) for cluster in clusters]
            self._bus.ensure(names.events, names.aggregates, names.subscribers, *inputs)
            self._ready(KAFKA, self._settings.kafka, self._deaths.get(KAFKA.name))
            # A cluster whose publisher starts slowly would otherwise join after the probe's window and never get it.
            cluster_routes.join(self._bus, names, clusters)
            windows = self._bus.reader(names.aggregates.name, self._bus.ends(names.aggregates.name))
            stack.callback(windows.close)
            with closing(self._bus.writer()) as writer:
                writer.send(names.events.name, None, key=b"probe")
                writer.flush()
        except KafkaUnreachableError:
            if not self._embedded:
                raise
            # It is still starting, or has died and is started again.
            return None
        self._feed_bus.ensure(*feeds)
        return windows

    def _look(self) -> None:
        """Find out which of the waiting stages are ready now."""
        try:
            if any(stage.module == "pipeline.subscriber" for stage in list(self._waiting.values())):
                self._read_announcements()
            for stage in list(self._waiting.values()):
                death = self._deaths.get(stage.name)
                if (address := self._address(stage, death)) is not None:
                    self._ready(stage, address, death)
        except KafkaUnreachableError as error:
            log.debug("Kafka does not answer, so that the stages cannot be looked at", error=str(error))
            self._release()

    def _ready(self, stage: Stage, address: str, death: Death | None) -> None:
        """Log that a stage is ready, unless it died since `death`, its last one when it was looked at."""
        with self._lock:
            if self._deaths.get(stage.name) is not death or self._waiting.pop(stage.name, None) is None:
                return
            self._deaths.pop(stage.name, None)
        if death is not None and stage.name in self._were_ready:
            log.info("back", name=stage.name, after_s=round(time.monotonic() - death.monotonic_s, 1), address=address)
        else:
            log.info("ready", name=stage.name, after_s=round(time.monotonic() - self._started_s, 1), address=address)
        self._were_ready.add(stage.name)

    def _address(self, stage: Stage, death: Death | None) -> str | None:
        """Return the address of a stage that is ready, None for one that is not."""
        if death is not None and time.monotonic() - death.monotonic_s < BACK_AFTER_S:
            return None
        if stage.name == KAFKA.name:
            # On a connection of its own, which waits for an answer.
            self._bus.close()
            self._bus.ends(self._names.aggregates.name)
            return self._settings.kafka
        if stage.name not in self._passed:
            if not self._has_passed_on(stage):
                return None
            self._passed.add(stage.name)
        if stage.module == "pipeline.subscriber":
            # Its URL may be that of a proxy, which need not be reached from here.
            return self._announced_url(stage)
        url = self._urls.get(stage.name, "")
        return url if not url or _answers(f"{url}/healthz") else None

    def _announced_url(self, stage: Stage) -> str | None:
        """Return the URL that a subscriber has announced since its last death, if any."""
        announcement = self._latest.get(_subscriber(stage))
        death = self._deaths.get(stage.name)
        if announcement is None or (death is not None and announcement.announced_ns < death.epoch_ns):
            return None
        return announcement.url

    def _has_passed_on(self, stage: Stage) -> bool:
        """Return whether a stage has passed on the first window."""
        if self._first is None or stage.module == "spark.job":
            return self._first is not None
        if stage.module == "pipeline.subscriber":
            announcement = self._latest.get(_subscriber(stage))
            return announcement is not None and _covers(announcement.last_event_id, self._first)
        if stage.module == "pipeline.cluster_publisher":
            return self._holds_first(self._feed_bus, self._names.feed(stage.arguments[1]).name)
        clusters = range(1, self._settings.clusters + 1)
        return all(self._holds_first(self._bus, self._names.cluster(str(cluster)).name) for cluster in clusters)

    def _holds_first(self, bus: Bus, topic: str) -> bool:
        windows = readable(bus.tail(topic, 1), decode_window, "window")
        return any(_covers(window.event_id, self._first) for _, window in windows)

    def _read_announcements(self) -> None:
        topic = self._names.subscribers.name
        if self._announcements is None:
            self._announcements = self._bus.reader(topic, self._bus.ends(topic))
        for _, announcement in keyed(self._announcements.poll(POLL_S), decode_announcement, "announcement"):
            if announcement is not None:
                self._latest[SubscriberId(announcement.cluster, announcement.subscriber)] = announcement

    def _release(self) -> None:
        """Close the connections, which open again on their next use."""
        if self._announcements is not None:
            self._announcements.close()
            self._announcements = None
        self._bus.close()
        self._feed_bus.close()


def _subscriber(stage: Stage) -> SubscriberId:
    _, cluster, _, subscriber = stage.arguments[:4]
    return SubscriberId(cluster, subscriber)


def _covers(event_id: str | None, window: Window | None) -> bool:
    """Return whether a stage that has passed on `event_id` has passed on `window`."""
    if event_id is None or window is None:
        return False
    epoch, _, number = event_id.rpartition(":")
    return epoch == window.epoch and number.isdecimal() and int(number) >= window.window


def _answers(url: str) -> bool:
    try:
        with direct_http.get(url, timeout_s=2) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False
