"""Registrations: the registry's assignments, and their way to and from Kafka."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from uuid import uuid4

import msgspec

from pipeline import logs, settings
from pipeline.addresses import SubscriberId
from pipeline.bus.base import Bus, Record
from pipeline.bus.follower import Follower
from pipeline.bus.records import keyed
from pipeline.bus.topics import topics
from pipeline.dead_letters import DeadLetters
from pipeline.errors import BufferFullError, KafkaUnreachableError
from pipeline.messages import Registration, Transport, decode_announcement, decode_registration, encode
from pipeline.registry.assignments import Assignment, Assignments, subscriber_of
from pipeline.registry.batch_writer import BatchWriter
from pipeline.registry.metrics import RegistryMeters
from pipeline.registry.rebalancing import Rebalancer
from pipeline.registry.refusals import no_live_subscriber, registry_full, unknown_client
from pipeline.registry.steady_clock import SteadyClock
from pipeline.turns import Turns
from pipeline.units import NS_PER_S

log = logs.get(__name__)

# Every subscriber announces itself once per second; an announcement older than these does not show that it is live.
ANNOUNCEMENTS = 2_000
TICK_S = 1.0
# Idle clients removed in one tick: a large crowd that left an hour ago need not be removed within one second.
REMOVED_MAX = 1_000
UNASKED_S = 60
"""A registration goes if its client has not asked for its stream after this time. If it asked another
registry, this one knows it by then: subscribers name each client that they hold within half a minute.
"""
UNOPENED_S = 120
CROWDED_SHARE = 0.5
"""A registry that is fuller also removes the registrations whose clients no subscriber has held within UNOPENED_S."""


class Registrations:
    """The assignments, the followers of both topics, and the writer of this registry's decisions.

    A decision is queued for the topic under the same lock, so that the topic has the decisions in their order.
    `failed(error)` is called from a thread when a topic can no longer be followed, or a tick fails.
    """

    def __init__(
        self,
        bus: Bus,
        values: settings.Settings,
        failed: Callable[[BaseException], None],
        clock_ns: Callable[[], int] | None = None,
    ) -> None:
        """`clock_ns` says which subscribers are live and which clients idle, and what time it is; None: a SteadyClock
        for the one and the wall clock for the other.
        """
        names = topics(values)
        bus.ensure(names.clients, names.subscribers, names.dead_letters)
        self._letters = DeadLetters(bus, names, "registry")
        self._misregistered = partial(self._letters.put, names.clients.name)
        self._misannounced = partial(self._letters.put, names.subscribers.name)
        self.wall_ns = clock_ns or time.time_ns
        self.clock_ns = clock_ns = clock_ns or SteadyClock()
        self.assignments = Assignments(values.silent_s, clock_ns(), values.clients_max)
        self.lock = threading.Lock()
        self._rebalancer = Rebalancer(values.silent_s, values.moves_per_s)
        self._clients_max = values.clients_max
        self._idle_s = values.client_idle_s
        self._failed = failed
        self._closed = threading.Event()
        self._ticks = Turns()
        self._clients = Follower(bus, names.clients.name, failed)
        self._subscribers = Follower(bus, names.subscribers.name, failed)
        self._apply_clients(self._clients.whole_history())
        self._apply_subscribers(self._subscribers.history(ANNOUNCEMENTS), live=False)
        self._writer = BatchWriter(bus.writer(), names.clients.name)
        self.meters = RegistryMeters(self.assignments, self.lock, self._writer, clock_ns)
        self._clients.start(self._apply_clients)
        self._subscribers.start(self._apply_subscribers)

    def stalled_s(self) -> float:
        """Return how long the registry has not gone on: following its topics, and ticking, seconds."""
        return max(each.stalled_s() for each in (self._clients.turns, self._subscribers.turns, self._ticks))

    def client(self, client_id: str) -> Registration:
        """Return a client's registration; the caller holds `lock`. Raises Refusal 404 for an unknown client."""
        registration = self.assignments.client(client_id)
        if registration is None:
            raise unknown_client(client_id)
        return registration

    def register(self, cluster: str | None, transport: Transport) -> tuple[Registration, str]:
        """Register a client; return its registration and its token once Kafka has the record.

        Raises Refusal 503 when the registry is full or no subscriber is live, KafkaUnreachableError or
        BufferFullError; the client is then not registered.
        """
        client_id, token = uuid4().hex, secrets.token_urlsafe(32)
        try:
            with self.lock:
                if len(self.assignments) >= self._clients_max:
                    raise registry_full(self._clients_max, self._idle_s)
                now_ns = self.clock_ns()
                registration = self.assignments.register(client_id, token, now_ns, cluster, transport)
                if registration is None:
                    raise no_live_subscriber(cluster, {live.cluster for live in self.assignments.live(now_ns)})
                acknowledged = self._writer.post(client_id.encode(), encode(registration))
            self._writer.wait(acknowledged)
        except (KafkaUnreachableError, BufferFullError):
            with self.lock:
                self.assignments.forget(client_id)
            raise
        self.meters.registrations.inc()
        return registration, token

    def assign(self, client_id: str) -> Assignment:
        """Return the subscriber that serves a client now, for a client that is about to connect there.

        A move is written without waiting: every subscriber accepts every registered client, so the answer is
        right even if the record is lost. Raises Refusal: 404 for an unknown client, 503 when no subscriber is live.
        """
        with self.lock:
            now_ns = self.clock_ns()
            self.client(client_id)
            assignment = self.assignments.assign(client_id, now_ns)
            if assignment is None:
                raise no_live_subscriber()
            self._rebalancer.connecting(client_id, subscriber_of(assignment.registration), now_ns)
            if assignment.moved:
                self.meters.moves.inc()
                log.debug("moved a client", client_id=client_id, to=assignment.subscriber.url)
                self._post(client_id, encode(assignment.registration))
        return assignment

    def remove(self, client_id: str) -> None:
        """End a registration; return once Kafka has the tombstone.

        Raises Refusal 404 for an unknown client; KafkaUnreachableError or BufferFullError, and the client is
        still registered.
        """
        with self.lock:
            self.client(client_id)
            registration = self.assignments.remove(client_id)
            try:
                acknowledged = self._writer.post(client_id.encode(), None)
            except BufferFullError:
                self.assignments.restore(registration)
                raise
        try:
            self._writer.wait(acknowledged)
        except KafkaUnreachableError:
            with self.lock:
                self.assignments.restore(registration)
            raise
        self.meters.removals.inc()

    def tick(self) -> None:
        """Do the work of one second: rebalance the subscribers, and remove clients that are idle or never came."""
        with self.lock:
            now_ns = self.clock_ns()
            for registration in self._rebalancer.step(self.assignments, now_ns):
                self._post(registration.client_id, encode(registration))
            idle = self.assignments.idle_clients(now_ns - int(self._idle_s * NS_PER_S), REMOVED_MAX)
            unopened = self.assignments.unasked_clients(now_ns - UNASKED_S * NS_PER_S, REMOVED_MAX)
            if len(self.assignments) > CROWDED_SHARE * self._clients_max:
                unopened += self.assignments.unopened_clients(now_ns - UNOPENED_S * NS_PER_S, REMOVED_MAX)
            for client_id in dict.fromkeys((*idle, *unopened)):
                self.assignments.remove(client_id)
                self._post(client_id, None)
        if idle or unopened:
            log.info("removed clients", idle=len(idle), unopened=len(set(unopened)))

    def run_ticks(self) -> None:
        """Tick until `close`; for a thread."""
        try:
            while not self._closed.wait(TICK_S):
                self._ticks.mark()
                self.tick()
        except Exception as error:
            log.exception("a tick failed; the registry ends")
            self._failed(error)

    def close(self) -> None:
        """Write the queued records, stop ticking and following."""
        self._closed.set()
        self._writer.close()
        self._clients.close()
        self._subscribers.close()
        self._letters.close()

    def _post(self, client_id: str, value: bytes | None) -> None:
        try:
            self._writer.post(client_id.encode(), value)
        except BufferFullError as error:
            log.warning("a move or removal was not written", client_id=client_id, error=str(error))

    def _apply_clients(self, records: Iterable[Record], _received_ns: int = 0) -> None:
        skipped = 0
        for client_id, registration in keyed(records, decode_registration, "registration", self._misregistered):
            if registration is not None and registration.client_id != client_id:
                skipped += 1
                continue
            with self.lock:
                skipped += not self.assignments.apply_registration(client_id, registration)
        if skipped:
            log.warning(
                "skipped registrations of another program: under another key, or beyond clients_max",
                registrations=skipped,
                clients_max=self._clients_max,
            )

    def _apply_subscribers(self, records: list[Record], _received_ns: int = 0, live: bool = True) -> None:
        """Apply announcements. Those that arrive now count from now, whatever the subscriber's clock says; those of the
        history count from their stamp, unless it lies in the future.
        """
        for key, announcement in keyed(records, decode_announcement, "announcement", self._misannounced):
            cluster, _, subscriber = key.partition("/")
            now_ns = self.clock_ns()
            if announcement is not None and (live or announcement.announced_ns > now_ns):
                announcement = msgspec.structs.replace(announcement, announced_ns=now_ns if live else 0)
            with self.lock:
                self.assignments.apply_announcement(SubscriberId(cluster, subscriber), announcement)
