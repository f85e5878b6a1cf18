"""Who watches where: which subscribers live, which client is whose, and where the next one goes.

Pure: records and the time of day go in, decisions come out. The registry owns one `Assignments` and carries what
it decides to Kafka; nothing here is safe for threads.

A subscriber is live while its last announcement is younger than `silent_s` by its own stamp, so that a roster
rebuilt from the topic takes no old announcement for a sign of life. A client is seen when it registers, comes for its
stream, or is named among those that a subscriber holds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration, Transport
from pipeline.tokens import token_sha256


class Assignment(NamedTuple):
    """Where a client belongs now; `moved` when that is not where it was: the new place has to be kept."""

    registration: Registration
    subscriber: Announcement
    moved: bool


class Assignments:
    """The registry's whole state. `started_ns` is when it began to see clients: none has been away since before."""

    def __init__(self, silent_s: float, started_ns: int = 0) -> None:
        self._silent_ns = int(silent_s * 1e9)
        self._started_ns = started_ns
        self._clients: dict[str, Registration] = {}
        self._subscribers: dict[SubscriberId, Announcement] = {}
        # Each place's clients and when each was seen last, the longest ago first.
        self._seen_ns: defaultdict[SubscriberId, dict[str, int]] = defaultdict(dict)
        self._assigned: Counter[SubscriberId] = Counter()
        self._removed: set[str] = set()

    def __len__(self) -> int:
        return len(self._clients)

    # what the topics say

    def hear_registration(self, client_id: str, registration: Registration | None) -> None:
        """Take one record of `client-registry`; None is the tombstone.

        A record that this roster itself has overtaken since (a move, a removal) comes back from the topic
        later than the decision, and changes nothing.
        """
        if registration is None:
            self._removed.discard(client_id)
            self._drop(client_id)
            return
        known = self._clients.get(client_id)
        if client_id in self._removed or (known and known.registered_ns >= registration.registered_ns):
            return
        self._keep(registration, registration.registered_ns)

    def hear_announcement(self, place: SubscriberId, announcement: Announcement | None) -> None:
        """Take one record of `subscribers`; None is the tombstone of a subscriber that has left."""
        # An announced load includes those assigned before it.
        self._assigned.pop(place, None)
        if announcement is None:
            self._subscribers.pop(place, None)
        else:
            self._subscribers[place] = announcement
            for client_id in announcement.held:
                self._see(client_id, announcement.announced_ns)

    # decisions

    def is_live(self, announcement: Announcement, now_ns: int) -> bool:
        """Whether that subscriber was heard within `silent_s`."""
        return now_ns - announcement.announced_ns < self._silent_ns

    def is_held(self, client_id: str, now_ns: int) -> bool:
        """Whether a registered client's subscriber is live. Raises KeyError for an unknown client."""
        registration = self._clients[client_id]
        held = self._subscribers.get(SubscriberId(registration.cluster, registration.subscriber))
        return held is not None and self.is_live(held, now_ns)

    def live(self, now_ns: int, cluster: str | None = None) -> list[Announcement]:
        """The live subscribers, of one cluster or of all."""
        return [
            announcement
            for place, announcement in self._subscribers.items()
            if cluster in (None, place.cluster) and self.is_live(announcement, now_ns)
        ]

    def choose(self, now_ns: int, cluster: str | None = None) -> Announcement | None:
        """The subscriber for one more client: the least loaded of the cluster with the least load a
        subscriber.

        The load is what a subscriber announced plus whom it was given since, so that a burst between two
        announcements spreads. Among equals, the one with the fewest registrations. None when nobody is live.
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
        """Give a new client its place, in `cluster` if it asks for one; None when nobody is live there."""
        chosen = self.choose(now_ns, cluster)
        if chosen is None:
            return None
        place = SubscriberId(chosen.cluster, chosen.subscriber)
        return self._assign(
            Registration(client_id, token_sha256(token), *place, now_ns, transport, cluster), place, now_ns
        )

    def seat(self, client_id: str, now_ns: int) -> Assignment | None:
        """Where `client_id`, which has come for its stream, finds it now; None when nobody at all is live.

        A client whose subscriber fell silent moves within the cluster it asked for or is in, or to another when that
        has nobody left: a view cut differently is better than none. Raises KeyError for an unknown client.
        """
        registration = self._clients[client_id]
        self._see(client_id, now_ns)
        if self.is_held(client_id, now_ns):
            return Assignment(registration, self._subscribers[place_of(registration)], moved=False)
        chosen = self.choose(now_ns, registration.asked or registration.cluster) or self.choose(now_ns)
        if chosen is None:
            return None
        return Assignment(
            self.move(client_id, SubscriberId(chosen.cluster, chosen.subscriber), now_ns), chosen, moved=True
        )

    def move(self, client_id: str, target: SubscriberId, now_ns: int) -> Registration:
        """Give a client another place. Raises KeyError for an unknown client."""
        registration = self._clients[client_id]
        moved = msgspec.structs.replace(
            registration,
            cluster=target.cluster,
            subscriber=target.subscriber,
            registered_ns=max(now_ns, registration.registered_ns + 1),
        )
        return self._assign(moved, target, now_ns)

    def forget(self, client_id: str) -> None:
        """Take back a `register` that could not be kept; if its record comes all the same, it counts."""
        self._drop(client_id)

    def remove(self, client_id: str) -> Registration:
        """Forget a client at once and return its registration; its records on their way do not bring it back.

        Raises KeyError for an unknown client.
        """
        registration = self._clients[client_id]
        self._removed.add(client_id)
        self._drop(client_id)
        return registration

    def restore(self, registration: Registration) -> None:
        """Take back a `remove` that could not be kept."""
        self._removed.discard(registration.client_id)
        self._keep(registration, registration.registered_ns)

    def long_gone(self, before_ns: int, limit: int) -> list[str]:
        """At most `limit` clients that nobody has seen since `before_ns`."""
        if before_ns <= self._started_ns:
            return []
        gone: list[str] = []
        for seen_ns in self._seen_ns.values():
            for client_id, last_ns in seen_ns.items():
                if last_ns >= before_ns or len(gone) == limit:
                    break
                gone.append(client_id)
        return gone

    # views

    def client(self, client_id: str) -> Registration | None:
        """A client's registration."""
        return self._clients.get(client_id)

    def clients(self, after: str, limit: int) -> list[Registration]:
        """At most `limit` registrations in the order of their ids, those after `after`."""
        ids: Iterable[str] = sorted(name for name in self._clients if name > after)
        return [self._clients[name] for name in islice(ids, limit)]

    def by_cluster(self) -> Counter[str]:
        """How many clients are registered in each cluster."""
        return Counter(registration.cluster for registration in self._clients.values())

    def subscribers(self) -> Iterator[Announcement]:
        """Every subscriber known, in order, live or silent."""
        return (self._subscribers[place] for place in sorted(self._subscribers))

    def registered(self, place: SubscriberId) -> int:
        """How many clients have their place there."""
        return len(self._seen_ns[place])

    def assigned(self, place: SubscriberId) -> int:
        """How many clients were led there since it announced its load."""
        return self._assigned[place]

    def seen_at(self, place: SubscriberId, since_ns: int) -> Iterator[Registration]:
        """The clients of a place that were seen since then, those seen last first."""
        for client_id, last_ns in reversed(self._seen_ns[place].items()):
            if last_ns < since_ns:
                return
            yield self._clients[client_id]

    def _weight(self, announcement: Announcement) -> tuple[int, int]:
        place = SubscriberId(announcement.cluster, announcement.subscriber)
        return announcement.clients + self._assigned[place], self.registered(place)

    def _assign(self, registration: Registration, place: SubscriberId, now_ns: int) -> Registration:
        self._assigned[place] += 1
        self._keep(registration, now_ns)
        return registration

    def _see(self, client_id: str, now_ns: int) -> None:
        registration = self._clients.get(client_id)
        if registration is not None:
            seen_ns = self._seen_ns[place_of(registration)]
            seen_ns[client_id] = max(now_ns, seen_ns.pop(client_id))

    def _keep(self, registration: Registration, seen_ns: int) -> None:
        self._drop(registration.client_id)
        self._clients[registration.client_id] = registration
        self._seen_ns[place_of(registration)][registration.client_id] = seen_ns

    def _drop(self, client_id: str) -> None:
        registration = self._clients.pop(client_id, None)
        if registration is not None:
            del self._seen_ns[place_of(registration)][client_id]


def place_of(registration: Registration) -> SubscriberId:
    """Where a client is registered."""
    return SubscriberId(registration.cluster, registration.subscriber)
