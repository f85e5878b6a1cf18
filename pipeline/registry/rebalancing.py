"""Moving clients from loaded subscribers to less loaded ones, a few per second, while they watch.

A step decides; its caller writes the moves to `client-registry`. There the old subscriber reads that a client has
moved and ends its stream; the client reconnects by its `stream_url` and resumes at the new subscriber.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from pipeline import logs
from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration
from pipeline.registry.assignments import Assignments
from pipeline.registry.balance import Load, shifts, tolerance
from pipeline.units import NS_PER_S

log = logs.get(__name__)

# Nothing moves until the set of subscribers has not changed for this time: one that pauses or restarts gets its own
# clients back first.
STEADY_NS = 10 * NS_PER_S
# After this time an announcement shows that a client has left.
LEFT_NS = 3 * NS_PER_S
# After this time a moved client that has not connected is no longer expected.
ARRIVED_NS = 10 * NS_PER_S
# Each subscriber names every client that it holds within half a minute: one not seen for longer has no stream to move.
WATCHING_NS = 150 * NS_PER_S


class _Move:
    """A moving client, and until when it may count at its source and at its target."""

    def __init__(self, source: SubscriberId, target: SubscriberId, now_ns: int) -> None:
        self.source = source
        self.target = target
        self.left_ns = now_ns + LEFT_NS
        self.arrived_ns = now_ns + ARRIVED_NS


class Rebalancer:
    """Evens out the loads of all subscribers, at most `per_s` clients per step, one step per second.

    A client that asked for its cluster stays in it. A subscriber takes part only while its announcements are prompt,
    younger than half of `silent_s`.
    """

    def __init__(self, silent_s: float, per_s: int) -> None:
        self._prompt_ns = int(silent_s * NS_PER_S / 2)
        self._per_s = per_s
        self._moving: dict[str, _Move] = {}
        # Clients moved since rebalancing began: each connects again once at most, not from target to target.
        self._moved: set[str] = set()
        # Clients that connect without having been moved: their subscriber's announcement may not count them yet.
        self._connecting: deque[tuple[int, SubscriberId]] = deque()
        self._members: frozenset[tuple[SubscriberId, str]] = frozenset()
        self._steady_since_ns = 0
        self._active = False

    def step(self, assignments: Assignments, now_ns: int) -> list[Registration]:
        """Move clients in `assignments`; return their new registrations."""
        self._moving = {client_id: move for client_id, move in self._moving.items() if move.arrived_ns > now_ns}
        while self._connecting and self._connecting[0][0] <= now_ns:
            self._connecting.popleft()
        prompt = {
            SubscriberId(announcement.cluster, announcement.subscriber): announcement
            for announcement in assignments.subscribers()
            if now_ns - announcement.announced_ns < self._prompt_ns
        }
        members = frozenset((subscriber_id, announcement.url) for subscriber_id, announcement in prompt.items())
        if members != self._members:
            self._members, self._steady_since_ns = members, now_ns
        if now_ns - self._steady_since_ns < STEADY_NS or len(members) < 2:
            return []
        moves = list(self._decide(assignments, prompt, now_ns))
        self._active = bool(moves) or (self._active and bool(self._moving))
        if not self._active:
            self._moved.clear()
        if moves:
            log.info("rebalancing", clients=len(moves), moving=len(self._moving))
        return moves

    def connecting(self, client_id: str, subscriber_id: SubscriberId, now_ns: int) -> None:
        """Note that a client asked for its stream and was redirected to `subscriber_id`."""
        move = self._moving.get(client_id)
        if move is not None:
            move.arrived_ns = min(move.arrived_ns, now_ns + LEFT_NS)
        else:
            self._connecting.append((now_ns + LEFT_NS, subscriber_id))

    def _decide(
        self, assignments: Assignments, prompt: dict[SubscriberId, Announcement], now_ns: int
    ) -> Iterator[Registration]:
        loads = {
            subscriber_id: self._load(assignments, announcement, now_ns)
            for subscriber_id, announcement in prompt.items()
        }
        allowed = tolerance(loads, self._active)
        if max(load.least for load in loads.values()) - min(load.most for load in loads.values()) <= allowed:
            return
        movable = {subscriber_id: self._movable(assignments, subscriber_id, now_ns) for subscriber_id in loads}
        loads = {
            subscriber_id: load._replace(
                may_move=len(movable[subscriber_id]), may_leave=sum(map(_may_leave, movable[subscriber_id]))
            )
            for subscriber_id, load in loads.items()
        }
        for source, target, clients in shifts(loads, allowed, self._per_s):
            fit = (client for client in movable[source] if source.cluster == target.cluster or _may_leave(client))
            for client in list(islice(fit, clients)):
                self._moving[client.client_id] = _Move(source, target, now_ns)
                self._moved.add(client.client_id)
                yield assignments.move(client.client_id, target, now_ns)
            movable[source] = [client for client in movable[source] if client.client_id not in self._moved]

    def _load(self, assignments: Assignments, announcement: Announcement, now_ns: int) -> Load:
        subscriber_id = SubscriberId(announcement.cluster, announcement.subscriber)
        leaving = sum(move.source == subscriber_id and move.left_ns > now_ns for move in self._moving.values())
        arriving = sum(move.target == subscriber_id for move in self._moving.values())
        arriving += sum(target == subscriber_id for _, target in self._connecting)
        return Load(
            least=max(0, announcement.clients - leaving),
            most=announcement.clients + arriving + assignments.assigned(subscriber_id),
            may_move=0,
            may_leave=0,
            accepts=announcement.last_event_id is not None,
        )

    def _movable(self, assignments: Assignments, subscriber_id: SubscriberId, now_ns: int) -> list[Registration]:
        """Return a subscriber's clients with a stream that have not moved yet, at most as many as a step may need."""
        watching = (
            client
            for client in assignments.seen_since(subscriber_id, now_ns - WATCHING_NS)
            if client.client_id not in self._moved
        )
        return list(islice(watching, 10 * self._per_s))


def _may_leave(registration: Registration) -> bool:
    """Return whether a client may move to another cluster: it did not ask for its own."""
    return registration.asked != registration.cluster
