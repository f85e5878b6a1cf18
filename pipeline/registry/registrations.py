"""Registrations: the registry's roster, and what carries it to and from Kafka."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from pipeline import logs, settings
from pipeline.addresses import SubscriberId
from pipeline.bus.base import Bus, Record
from pipeline.bus.follower import ALL, Follower
from pipeline.bus.records import keyed
from pipeline.bus.topics import topics
from pipeline.errors import BufferFullError, KafkaUnreachableError, RegistryFullError
from pipeline.messages import Registration, Transport, decode_announcement, decode_registration, encode
from pipeline.registry.assignments import Assignments, place_of
from pipeline.registry.batch_writer import BatchWriter
from pipeline.registry.metrics import RegistryMeters
from pipeline.registry.rebalancing import Rebalancer

log = logs.get(__name__)

# Every subscriber announces itself each second; older announcements are no sign of life anyway.
ANNOUNCEMENTS = 2_000
TICK_S = 1.0
# Clients forgotten in one tick: those of a crowd that went home an hour ago need not go in one second.
FORGOTTEN_MAX = 1_000


class Registrations:
    """The roster, and what carries it: followers of both topics and a journal for what is decided here.

    What is decided is posted under the same lock, so that the topic has it in the order of the decisions.
    `failed(error)` is called from a thread when a topic can no longer be followed, or a tick fails.
    """

    def __init__(
        self,
        bus: Bus,
        values: settings.Settings,
        failed: Callable[[BaseException], None],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        names = topics(values)
        bus.ensure(names.clients, names.subscribers)
        self.roster = Assignments(values.silent_s, clock_ns())
        self.lock = threading.Lock()
        self._rebalancer = Rebalancer(values.silent_s, values.moves_per_s)
        self._clients_max = values.clients_max
        self._idle_ns = int(values.client_idle_s * 1e9)
        self._failed = failed
        self._closed = threading.Event()
        self.clock_ns = clock_ns
        self._clients = Follower(bus, names.clients.name, failed)
        self._subscribers = Follower(bus, names.subscribers.name, failed)
        self._hear_clients(self._clients.history(ALL))
        self._hear_subscribers(self._subscribers.history(ANNOUNCEMENTS))
        self._journal = BatchWriter(bus.writer(), names.clients.name)
        self.meters = RegistryMeters(self.roster, self.lock, self._journal, clock_ns)
        self._clients.start(self._hear_clients)
        self._subscribers.start(self._hear_subscribers)

    def register(self, cluster: str | None, transport: Transport) -> tuple[Registration, str] | None:
        """Register a client; return it and its token once Kafka has it, or None when nobody is live there.

        Raises RegistryFullError, KafkaUnreachableError or BufferFullError; the client is then not registered.
        """
        client_id, token = uuid4().hex, secrets.token_urlsafe(32)
        try:
            with self.lock:
                if len(self.roster) >= self._clients_max:
                    raise RegistryFullError(
                        f"clients_max={self._clients_max} clients are registered: come back later; those that hold no "
                        f"stream for client_idle_s={self._idle_ns / 1e9:g} s make room"
                    )
                registration = self.roster.register(client_id, token, self.clock_ns(), cluster, transport)
                if registration is None:
                    return None
                kept = self._journal.post(client_id.encode(), encode(registration))
            self._journal.wait(kept)
        except (KafkaUnreachableError, BufferFullError):
            with self.lock:
                self.roster.forget(client_id)
            raise
        self.meters.registrations.inc()
        return registration, token

    def stream_base(self, client_id: str) -> str | None:
        """The URL of the subscriber that holds a client now; None when nobody is live.

        A move is written without waiting: every subscriber takes every registered client, so the answer is
        right even if the record is lost. Raises KeyError for an unknown client.
        """
        with self.lock:
            now_ns = self.clock_ns()
            seat = self.roster.seat(client_id, now_ns)
            if seat is None:
                return None
            self._rebalancer.came(client_id, place_of(seat.registration), now_ns)
            if seat.moved:
                self.meters.moves.inc()
                log.debug("moved a client", client_id=client_id, to=seat.subscriber.url)
                self._note(client_id, encode(seat.registration))
        return seat.subscriber.url

    def remove(self, client_id: str) -> None:
        """End a registration; return once Kafka has the tombstone.

        Raises KeyError for an unknown client; KafkaUnreachableError or BufferFullError, and the client is
        still registered.
        """
        with self.lock:
            registration = self.roster.remove(client_id)
            try:
                kept = self._journal.post(client_id.encode(), None)
            except BufferFullError:
                self.roster.restore(registration)
                raise
        try:
            self._journal.wait(kept)
        except KafkaUnreachableError:
            with self.lock:
                self.roster.restore(registration)
            raise
        self.meters.removals.inc()

    def tick(self) -> None:
        """Do what is due every second: even the subscribers' loads out, forget clients that are long gone."""
        with self.lock:
            now_ns = self.clock_ns()
            for registration in self._rebalancer.step(self.roster, now_ns):
                self._note(registration.client_id, encode(registration))
            gone = self.roster.long_gone(now_ns - self._idle_ns, FORGOTTEN_MAX)
            for client_id in gone:
                self.roster.remove(client_id)
                self._note(client_id, None)
        if gone:
            log.info("forgot clients that held no stream for long", clients=len(gone))

    def keep(self) -> None:
        """Tick until `close`; for a thread."""
        try:
            while not self._closed.wait(TICK_S):
                self.tick()
        except Exception as error:
            log.exception("gave up ticking")
            self._failed(error)

    def close(self) -> None:
        """Write what is queued, stop ticking and following."""
        self._closed.set()
        self._journal.close()
        self._clients.close()
        self._subscribers.close()

    def _note(self, client_id: str, value: bytes | None) -> None:
        try:
            self._journal.post(client_id.encode(), value)
        except BufferFullError as error:
            log.warning("a decision was not kept", client_id=client_id, error=str(error))

    def _hear_clients(self, records: list[Record], _received_ns: int = 0) -> None:
        for client_id, registration in keyed(records, decode_registration, "registration"):
            with self.lock:
                self.roster.hear_registration(client_id, registration)

    def _hear_subscribers(self, records: list[Record], _received_ns: int = 0) -> None:
        for place, announcement in keyed(records, decode_announcement, "announcement"):
            cluster, _, subscriber = place.partition("/")
            with self.lock:
                self.roster.hear_announcement(SubscriberId(cluster, subscriber), announcement)
