"""Enrolment: the registry's roster, and what carries it to and from Kafka."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from pipeline import logs, settings
from pipeline.buses.bus import Bus, Record
from pipeline.delivering.following import ALL, Follower
from pipeline.enrolling.journal import Journal
from pipeline.enrolling.metrics import RegistryMeters
from pipeline.enrolling.roster import Place, Roster
from pipeline.errors import BufferFullError, EmoStreamError, MessageError
from pipeline.messages import Registration, decode_announcement, decode_registration, encode
from pipeline.topics import topics

log = logs.get(__name__)

# Every subscriber announces itself each second; older announcements are no sign of life anyway.
ANNOUNCEMENTS = 2_000


class Enrolment:
    """The roster, and what carries it: followers of both topics and a journal for what is decided here.

    `failed(error)` is called from a thread when a topic can no longer be followed.
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
        self.roster = Roster(values.silent_s)
        self.lock = threading.Lock()
        self.clock_ns = clock_ns
        self._clients = Follower(bus, names.clients.name, failed)
        self._subscribers = Follower(bus, names.subscribers.name, failed)
        self._hear_clients(self._clients.history(ALL))
        self._hear_subscribers(self._subscribers.history(ANNOUNCEMENTS))
        self._journal = Journal(bus.writer(), names.clients.name)
        self.meters = RegistryMeters(self.roster, self.lock, self._journal, clock_ns)
        self._clients.start(self._hear_clients)
        self._subscribers.start(self._hear_subscribers)

    def register(self, cluster: str | None) -> tuple[Registration, str] | None:
        """Register a client; return it and its token once Kafka has it, or None when nobody is live there.

        Raises KafkaUnreachableError or BufferFullError; the client is then not registered.
        """
        client_id, token = uuid4().hex, secrets.token_urlsafe(32)
        with self.lock:
            registration = self.roster.register(client_id, token, self.clock_ns(), cluster)
        if registration is None:
            return None
        try:
            self._journal.append(client_id.encode(), encode(registration))
        except EmoStreamError:
            with self.lock:
                self.roster.remove(client_id)
            raise
        self.meters.registrations.inc()
        return registration, token

    def stream_base(self, client_id: str) -> str | None:
        """The URL of the subscriber that holds a client now; None when nobody is live.

        A move is written without waiting: every subscriber takes every registered client, so the answer is
        right even if the record is lost. Raises KeyError for an unknown client.
        """
        with self.lock:
            seat = self.roster.seat(client_id, self.clock_ns())
        if seat is None:
            return None
        if seat.moved:
            self.meters.moves.inc()
            log.debug("moved a client", client_id=client_id, to=seat.subscriber.url)
            try:
                self._journal.post(client_id.encode(), encode(seat.registration))
            except BufferFullError as error:
                log.warning("a move was not kept", client_id=client_id, error=str(error))
        return seat.subscriber.url

    def remove(self, client_id: str) -> None:
        """End a registration; return once Kafka has the tombstone.

        Raises KeyError for an unknown client; KafkaUnreachableError or BufferFullError, and the client is
        still registered.
        """
        with self.lock:
            registration = self.roster.remove(client_id)
        try:
            self._journal.append(client_id.encode(), None)
        except EmoStreamError:
            with self.lock:
                self.roster.restore(registration)
            raise
        self.meters.removals.inc()

    def close(self) -> None:
        """Write what is queued, stop following."""
        self._journal.close()
        self._clients.close()
        self._subscribers.close()

    def _hear_clients(self, records: list[Record], _received_ns: int = 0) -> None:
        for record in records:
            if record.key is None:
                continue
            try:
                registration = None if record.value is None else decode_registration(record.value)
            except MessageError as error:
                log.error("skipped a record that is no registration", offset=record.offset, reason=str(error))
                continue
            with self.lock:
                self.roster.hear_registration(record.key.decode(errors="replace"), registration)

    def _hear_subscribers(self, records: list[Record], _received_ns: int = 0) -> None:
        for record in records:
            cluster, _, subscriber = (record.key or b"").decode(errors="replace").partition("/")
            try:
                announcement = None if record.value is None else decode_announcement(record.value)
            except MessageError as error:
                log.error("skipped a record that is no announcement", offset=record.offset, reason=str(error))
                continue
            with self.lock:
                self.roster.hear_announcement(Place(cluster, subscriber), announcement)
