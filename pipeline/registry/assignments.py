"""Assignments: which subscribers are live, which client belongs to which subscriber, and where a new client goes.

Pure: records and the time of day go in, decisions come out. The registry owns one `Assignments` and writes its
decisions to Kafka. It is not safe for threads.

A subscriber is live while its last announcement is younger than `silent_s`. `announced_ns` is when the registry heard
it, or of one that it read again after a restart the subscriber's own stamp: old ones do not make it live. A client is
seen when it registers, when it asks for its stream, or when an announcement lists it among the clients that the
subscriber holds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration, Transport
from pipeline.settings import DEFAULTS
from pipeline.tokens import token_sha256
from pipeline.units import NS_PER_S


class Assignment(NamedTuple):
    """The subscriber of a client now; `moved` if it is another one than before, so that the registration changed."""

    registration: Registration
    subscriber: Announcement
    moved: bool


class Assignments:
    """The registry's whole state. `started_ns` is when it began to see clients: it knows nothing from before.

    Registrations that it reads are taken up to `clients_max`; its owner asks before it registers one.
    """

    def __init__(self, silent_s: float, started_ns: int = 0, clients_max: int = DEFAULTS.clients_max) -> None:
        self._silent_ns = int(silent_s * NS_PER_S)
        self._started_ns = started_ns
        self._clients_max = clients_max
        self._clients: dict[str, Registration] = {}
        self._subscribers: dict[SubscriberId, Announcement] = {}
        # Each subscriber's clients with the time each was last seen, the earliest first.
        self._seen_ns: defaultdict[SubscriberId, dict[str, int]] = defaultdict(dict)
        self._assigned: Counter[SubscriberId] = Counter()
        self._removed: set[str] = set()
        # When each client registered here that no subscriber has held yet, the earliest first.
        self._unopened_ns: dict[str, int] = {}
        # When each client registered here that has not asked for its stream either, the earliest first.
        self._unasked_ns: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._clients)

    # records of the topics

    def apply_registration(self, client_id: str, registration: Registration | None) -> bool:
        """Apply one record of `client-registry`; None is the tombstone.

        A record comes back from the topic after this registry may have decided something newer (a move, a
        removal); such an older record changes nothing. Returns False if there is no room for a further client:
        another program has written it.
        """
        if registration is None:
            self._removed.discard(client_id)
            self._drop(client_id)
            return True
        known = self._clients.get(client_id)
        if client_id in self._removed or (known and known.registered_ns >= registration.registered_ns):
            return True
        if known is None and len(self._clients) >= self._clients_max:
            return False
        self._keep(registration, registration.registered_ns)
        return True

    def apply_announcement(self, subscriber_id: SubscriberId, announcement: Announcement | None) -> None:
        """Apply one record of `subscribers`; None is the tombstone of a subscriber that has left."""
        # An announced load includes the clients that were assigned before it.
        self._assigned.pop(subscriber_id, None)
        if announcement is None:
            self._subscribers.pop(subscriber_id, None)
        else:
            self._subscribers[subscriber_id] = announcement
            for client_id in announcement.held:
                self._unopened_ns.pop(client_id, None)
                self._unasked_ns.pop(client_id, None)
                self._see(client_id, announcement.announced_ns)

    # decisions

    def is_live(self, announcement: Announcement, now_ns: int) -> bool:
        """Return whether that subscriber announced itself within `silent_s`."""
        return now_ns - announcement.announced_ns < self._silent_ns

    def has_live_subscriber(self, client_id: str, now_ns: int) -> bool:
        """Return whether a registered client's subscriber is live. Raises KeyError for an unknown client."""
        announcement = self._subscribers.get(subscriber_of(self._clients[client_id]))
        return announcement is not None and self.is_live(announcement, now_ns)

    def live(self, now_ns: int, cluster: str | None = None) -> list[Announcement]:
        """Return the live subscribers, of one cluster or of all."""
        return [
            announcement
            for subscriber_id, announcement in self._subscribers.items()
            if cluster in (None, subscriber_id.cluster) and self.is_live(announcement, now_ns)
        ]

    def choose(self, now_ns: int, cluster: str | None = None) -> Announcement | None:
        """Return the subscriber for one more client, or None when none is live.

        It is the least loaded subscriber of the cluster with the least load per subscriber. The load is the announced
        number of clients plus those assigned since, so that a burst between two announcements spreads. With equal
        loads, the subscriber with the fewest registrations is chosen.
        """
        clusters: dict[str, list[Announcement]] = {}
        for announcement in self.live(now_ns, cluster):
            clusters.setdefault(announcement.cluster, []).append(announcement)
        if not clusters:
            return None

        def weight(name: str) -> tuple[float, float, str]:
            members = [self._weight(member) for member in clusters[name]]
            loads, registered = (sum(column) / len(members) for column in zip(*members, strict=True))
            return loads, registered, name

        least = min(clusters, key=weight)
        return min(clusters[least], key=lambda member: (*self._weight(member), member.subscriber))

    def register(
        self,
        client_id: str,
        token: str,
        now_ns: int,
        cluster: str | None = None,
        transport: Transport = "sse",
    ) -> Registration | None:
        """Assign a new client, in `cluster` if it asks for one; return None when no subscriber is live there."""
        chosen = self.choose(now_ns, cluster)
        if chosen is None:
            return None
        subscriber_id = SubscriberId(chosen.cluster, chosen.subscriber)
        registration = Registration(client_id, token_sha256(token), *subscriber_id, now_ns, transport, cluster)
        self._count_and_keep(registration, now_ns)
        self._unopened_ns[client_id] = self._unasked_ns[client_id] = now_ns
        return registration

    def assign(self, client_id: str, now_ns: int) -> Assignment | None:
        """Return the subscriber of `client_id`, which asks for its stream, or None when no subscriber is live.

        If the client's subscriber is not live, the client moves within the cluster that it asked for or is in, or to
        another cluster when that one has no live subscriber. Raises KeyError for an unknown client.
        """
        registration = self._clients[client_id]
        self._unasked_ns.pop(client_id, None)
        self._see(client_id, now_ns)
        if self.has_live_subscriber(client_id, now_ns):
            return Assignment(registration, self._subscribers[subscriber_of(registration)], moved=False)
        chosen = self.choose(now_ns, registration.asked or registration.cluster) or self.choose(now_ns)
        if chosen is None:
            return None
        moved = self.move(client_id, SubscriberId(chosen.cluster, chosen.subscriber), now_ns)
        return Assignment(moved, chosen, moved=True)

    def move(self, client_id: str, target: SubscriberId, now_ns: int) -> Registration:
        """Assign a client to another subscriber. Raises KeyError for an unknown client."""
        registration = self._clients[client_id]
        moved = msgspec.structs.replace(
            registration,
            cluster=target.cluster,
            subscriber=target.subscriber,
            registered_ns=max(now_ns, registration.registered_ns + 1),
        )
        self._count_and_keep(moved, now_ns)
        return moved

    def forget(self, client_id: str) -> None:
        """Undo a `register` whose record was not acknowledged; if the record arrives anyway, it is applied."""
        self._drop(client_id)

    def remove(self, client_id: str) -> Registration:
        """Remove a client at once and return its registration; older records of it do not bring it back.

        Raises KeyError for an unknown client.
        """
        registration = self._clients[client_id]
        self._removed.add(client_id)
        self._drop(client_id)
        return registration

    def restore(self, registration: Registration) -> None:
        """Undo a `remove` whose tombstone was not acknowledged."""
        self._removed.discard(registration.client_id)
        self._keep(registration, registration.registered_ns)

    def idle_clients(self, before_ns: int, limit: int) -> list[str]:
        """Return at most `limit` clients that were last seen before `before_ns`."""
        if before_ns <= self._started_ns:
            return []
        idle: list[str] = []
        for seen_ns in self._seen_ns.values():
            for client_id, last_ns in seen_ns.items():
                if last_ns >= before_ns or len(idle) == limit:
                    break
                idle.append(client_id)
        return idle

    def unopened_clients(self, before_ns: int, limit: int) -> list[str]:
        """Return at most `limit` clients that registered before `before_ns`, and that no subscriber has held.

        Those that registered before this registry's start are not known to be such.
        """
        return _before(self._unopened_ns, before_ns, limit)

    def unasked_clients(self, before_ns: int, limit: int) -> list[str]:
        """Return those of `unopened_clients` that have not asked this registry for their stream."""
        return _before(self._unasked_ns, before_ns, limit)

    # queries

    def client(self, client_id: str) -> Registration | None:
        """Return a client's registration."""
        return self._clients.get(client_id)

    def clients(self, after: str, limit: int) -> list[Registration]:
        """Return at most `limit` registrations in the order of their ids, those after `after`."""
        ids: Iterable[str] = sorted(name for name in self._clients if name > after)
        return [self._clients[name] for name in islice(ids, limit)]

    def by_cluster(self) -> Counter[str]:
        """Return the number of registered clients by cluster."""
        return Counter(registration.cluster for registration in self._clients.values())

    def subscribers(self) -> Iterator[Announcement]:
        """Return the last announcement of every known subscriber, live or silent, in the order of their ids."""
        return (self._subscribers[subscriber_id] for subscriber_id in sorted(self._subscribers))

    def last_event_id(self, subscriber_id: SubscriberId) -> str | None:
        """Return the id of the newest window that a subscriber announced; None if it has had none, or is unknown."""
        announcement = self._subscribers.get(subscriber_id)
        return None if announcement is None else announcement.last_event_id

    def registered(self, subscriber_id: SubscriberId) -> int:
        """Return the number of clients that are registered with a subscriber."""
        return len(self._seen_ns[subscriber_id])

    def assigned(self, subscriber_id: SubscriberId) -> int:
        """Return the number of clients assigned to a subscriber since its last announcement."""
        return self._assigned[subscriber_id]

    def seen_since(self, subscriber_id: SubscriberId, since_ns: int) -> Iterator[Registration]:
        """Yield a subscriber's clients that were seen since then, the last seen first."""
        for client_id, last_ns in reversed(self._seen_ns[subscriber_id].items()):
            if last_ns < since_ns:
                return
            yield self._clients[client_id]

    def _weight(self, announcement: Announcement) -> tuple[int, int]:
        subscriber_id = SubscriberId(announcement.cluster, announcement.subscriber)
        return announcement.clients + self._assigned[subscriber_id], self.registered(subscriber_id)

    def _count_and_keep(self, registration: Registration, now_ns: int) -> None:
        self._assigned[subscriber_of(registration)] += 1
        self._keep(registration, now_ns)

    def _see(self, client_id: str, now_ns: int) -> None:
        registration = self._clients.get(client_id)
        if registration is not None:
            seen_ns = self._seen_ns[subscriber_of(registration)]
            seen_ns[client_id] = max(now_ns, seen_ns.pop(client_id))

    def _keep(self, registration: Registration, seen_ns: int) -> None:
        self._leave(registration.client_id)
        self._clients[registration.client_id] = registration
        self._seen_ns[subscriber_of(registration)][registration.client_id] = seen_ns

    def _drop(self, client_id: str) -> None:
        self._unopened_ns.pop(client_id, None)
        self._unasked_ns.pop(client_id, None)
        self._leave(client_id)

    def _leave(self, client_id: str) -> None:
        registration = self._clients.pop(client_id, None)
        if registration is not None:
            del self._seen_ns[subscriber_of(registration)][client_id]


def subscriber_of(registration: Registration) -> SubscriberId:
    """Return the subscriber that a client is registered with."""
    return SubscriberId(registration.cluster, registration.subscriber)


def _before(registered_ns: dict[str, int], before_ns: int, limit: int) -> list[str]:
    """Return the first clients, at most `limit`, that registered before then."""
    return [client_id for client_id, then_ns in islice(registered_ns.items(), limit) if then_ns < before_ns]
