"""Moving clients from full subscribers to empty ones, a few a second, while everyone watches.

A step decides and notes; whoever takes it writes the moves to `client-registry`. There the old subscriber learns that
a client is not its own any more and ends the stream; the client comes back by its `stream_url` and resumes elsewhere.
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

log = logs.get(__name__)

NS = 1_000_000_000
# Nothing moves until the same subscribers have been there for so long: one that pauses or is started again gets its
# own clients back, and theirs is the better claim.
STEADY_NS = 10 * NS
# When what a subscriber announces shows that a client has left it, or has come; the latter at most so long after the
# move, for a client that never comes had gone already.
LEFT_NS = 3 * NS
COME_NS = 10 * NS
# Every client is named once a minute by whoever holds it: who was not seen for longer is not there to be moved.
WATCHING_NS = 150 * NS


class _Move:
    """A client on its way, and until when it may count at either place."""

    def __init__(self, source: SubscriberId, target: SubscriberId, now_ns: int) -> None:
        self.source = source
        self.target = target
        self.left_ns = now_ns + LEFT_NS
        self.come_ns = now_ns + COME_NS


class Rebalancer:
    """Evens out the loads of a roster's subscribers, at most `per_s` clients a step, one step a second.

    A client that asked for its cluster stays in it. A subscriber counts only while it announces promptly, within half
    of `silent_s`.
    """

    def __init__(self, silent_s: float, per_s: int) -> None:
        self._prompt_ns = int(silent_s * NS / 2)
        self._per_s = per_s
        self._moving: dict[str, _Move] = {}
        # Those who came by themselves: what their subscriber announces may not have them yet.
        self._arriving: deque[tuple[int, SubscriberId]] = deque()
        self._members: frozenset[tuple[SubscriberId, str]] = frozenset()
        self._steady_since_ns = 0
        self._active = False

    def step(self, roster: Assignments, now_ns: int) -> list[Registration]:
        """Return who moves now, with their new places; the roster has them there already."""
        self._moving = {client_id: move for client_id, move in self._moving.items() if move.come_ns > now_ns}
        while self._arriving and self._arriving[0][0] <= now_ns:
            self._arriving.popleft()
        prompt = {
            SubscriberId(said.cluster, said.subscriber): said
            for said in roster.subscribers()
            if now_ns - said.announced_ns < self._prompt_ns
        }
        members = frozenset((place, said.url) for place, said in prompt.items())
        if members != self._members:
            self._members, self._steady_since_ns = members, now_ns
        if now_ns - self._steady_since_ns < STEADY_NS or len(members) < 2:
            return []
        moves = list(self._decide(roster, prompt, now_ns))
        self._active = bool(moves) or (self._active and bool(self._moving))
        if moves:
            log.info("evening out", clients=len(moves), on_their_way=len(self._moving))
        return moves

    def came(self, client_id: str, place: SubscriberId, now_ns: int) -> None:
        """Note that a client has come for its stream and was led to `place`, where it is about to arrive."""
        move = self._moving.get(client_id)
        if move is not None:
            move.come_ns = min(move.come_ns, now_ns + LEFT_NS)
        else:
            self._arriving.append((now_ns + LEFT_NS, place))

    def _decide(
        self, roster: Assignments, prompt: dict[SubscriberId, Announcement], now_ns: int
    ) -> Iterator[Registration]:
        loads = {place: self._load(roster, said, now_ns) for place, said in prompt.items()}
        allowed = tolerance(loads, self._active)
        if max(load.least for load in loads.values()) - min(load.most for load in loads.values()) <= allowed:
            return
        here = {place: self._movable(roster, place, now_ns) for place in loads}
        loads = {
            place: load._replace(may_move=len(here[place]), may_leave=sum(map(_may_leave, here[place])))
            for place, load in loads.items()
        }
        for source, target, clients in shifts(loads, allowed, self._per_s):
            fit = (one for one in here[source] if source.cluster == target.cluster or _may_leave(one))
            for one in list(islice(fit, clients)):
                self._moving[one.client_id] = _Move(source, target, now_ns)
                yield roster.move(one.client_id, target, now_ns)
            here[source] = [one for one in here[source] if one.client_id not in self._moving]

    def _load(self, roster: Assignments, said: Announcement, now_ns: int) -> Load:
        place = SubscriberId(said.cluster, said.subscriber)
        leaving = sum(move.source == place and move.left_ns > now_ns for move in self._moving.values())
        coming = sum(move.target == place for move in self._moving.values())
        coming += sum(at == place for _, at in self._arriving)
        return Load(
            least=max(0, said.clients - leaving),
            most=said.clients + coming + roster.assigned(place),
            may_move=0,
            may_leave=0,
            takes=said.last_event_id is not None,
        )

    def _movable(self, roster: Assignments, place: SubscriberId, now_ns: int) -> list[Registration]:
        """The clients of a place that watch and are not on their way, as many as may ever be needed."""
        watching = (one for one in roster.seen_at(place, now_ns - WATCHING_NS) if one.client_id not in self._moving)
        return list(islice(watching, 10 * self._per_s))


def _may_leave(registration: Registration) -> bool:
    """Whether a client may go to another cluster: it did not ask for the one that it is in."""
    return registration.asked != registration.cluster
