"""Who watches where: which subscribers live, which client is whose, and where the next one goes.

Pure: records and the time of day go in, decisions come out. The registry owns one `Roster` and carries what
it decides to Kafka; nothing here is safe for threads.

A subscriber is live while its last announcement is younger than `silent_s` by its own stamp, so that a roster
rebuilt from the topic takes no old announcement for a sign of life.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from pipeline.delivering.tokens import token_sha256
from pipeline.messages import Announcement, Registration

WILDCARDS = frozenset({"", "0.0.0.0", "::"})


def base_url(override: str, host: str, port: int) -> str:
    """Return how clients reach a stage: `override`, else http://host:port, without a slash at its end.

    A wildcard address is nothing a client can call, so this machine's name stands for it.
    """
    if override:
        return override.rstrip("/")
    name = platform.node() if host in WILDCARDS else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


class Place(NamedTuple):
    """A subscriber's identity."""

    cluster: str
    subscriber: str

    @property
    def key(self) -> str:
        """The key of its announcements: `{cluster}/{subscriber}`."""
        return f"{self.cluster}/{self.subscriber}"


class Seat(NamedTuple):
    """Where a client belongs now; `moved` when that is not where it was: the new place has to be kept."""

    registration: Registration
    subscriber: Announcement
    moved: bool


class Roster:
    """The registry's whole state."""

    def __init__(self, silent_s: float) -> None:
        self._silent_ns = int(silent_s * 1e9)
        self._clients: dict[str, Registration] = {}
        self._subscribers: dict[Place, Announcement] = {}
        self._registered: Counter[Place] = Counter()
        self._assigned: Counter[Place] = Counter()
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
        if client_id in self._removed or (known and known.registered_ns > registration.registered_ns):
            return
        self._keep(registration)

    def hear_announcement(self, place: Place, announcement: Announcement | None) -> None:
        """Take one record of `subscribers`; None is the tombstone of a subscriber that has left."""
        # An announced load includes those assigned before it.
        self._assigned.pop(place, None)
        if announcement is None:
            self._subscribers.pop(place, None)
        else:
            self._subscribers[place] = announcement

    # decisions

    def is_live(self, announcement: Announcement, now_ns: int) -> bool:
        """Whether that subscriber was heard within `silent_s`."""
        return now_ns - announcement.announced_ns < self._silent_ns

    def is_held(self, client_id: str, now_ns: int) -> bool:
        """Whether a registered client's subscriber is live. Raises KeyError for an unknown client."""
        registration = self._clients[client_id]
        held = self._subscribers.get(Place(registration.cluster, registration.subscriber))
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

    def register(self, client_id: str, token: str, now_ns: int, cluster: str | None = None) -> Registration | None:
        """Give a new client its place; None when nobody is live there."""
        chosen = self.choose(now_ns, cluster)
        if chosen is None:
            return None
        return self._assign(client_id, token_sha256(token), chosen, now_ns)

    def seat(self, client_id: str, now_ns: int) -> Seat | None:
        """Where `client_id` finds its stream now; None when nobody at all is live.

        A client whose subscriber fell silent moves within its cluster, or to another when its own has nobody
        left: a view cut differently is better than none. Raises KeyError for an unknown client.
        """
        registration = self._clients[client_id]
        place = Place(registration.cluster, registration.subscriber)
        if self.is_held(client_id, now_ns):
            return Seat(registration, self._subscribers[place], moved=False)
        chosen = self.choose(now_ns, registration.cluster) or self.choose(now_ns)
        if chosen is None:
            return None
        later_ns = max(now_ns, registration.registered_ns + 1)
        return Seat(self._assign(client_id, registration.token_sha256, chosen, later_ns), chosen, moved=True)

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
        self._keep(registration)

    # views

    def client(self, client_id: str) -> Registration | None:
        """A client's registration."""
        return self._clients.get(client_id)

    def clients(self, after: str, limit: int) -> list[Registration]:
        """At most `limit` registrations in the order of their ids, those after `after`."""
        ids: Iterable[str] = sorted(name for name in self._clients if name > after)
        return [self._clients[name] for name in islice(ids, limit)]

    def registered(self) -> Counter[str]:
        """How many clients are registered in each cluster."""
        clusters: Counter[str] = Counter()
        for place, count in self._registered.items():
            clusters[place.cluster] += count
        return clusters

    def subscribers(self) -> Iterator[Announcement]:
        """Every subscriber known, in order, live or silent."""
        return (self._subscribers[place] for place in sorted(self._subscribers))

    def _weight(self, announcement: Announcement) -> tuple[int, int]:
        place = Place(announcement.cluster, announcement.subscriber)
        return announcement.clients + self._assigned[place], self._registered[place]

    def _assign(self, client_id: str, digest: str, chosen: Announcement, now_ns: int) -> Registration:
        registration = Registration(client_id, digest, chosen.cluster, chosen.subscriber, now_ns)
        self._assigned[Place(chosen.cluster, chosen.subscriber)] += 1
        self._keep(registration)
        return registration

    def _keep(self, registration: Registration) -> None:
        self._drop(registration.client_id)
        self._clients[registration.client_id] = registration
        self._registered[Place(registration.cluster, registration.subscriber)] += 1

    def _drop(self, client_id: str) -> None:
        registration = self._clients.pop(client_id, None)
        if registration is not None:
            self._registered[Place(registration.cluster, registration.subscriber)] -= 1


def view(registration: Registration, registry_url: str, live: bool) -> dict[str, object]:
    """What anyone may know of a client: everything but its token's digest."""
    shown = msgspec.structs.asdict(registration)
    del shown["token_sha256"]
    return {**shown, "stream_url": f"{registry_url}/clients/{registration.client_id}/stream", "live": live}
