"""How many clients move from which subscriber to which, to even out the loads. Pure.

The exact load of a subscriber is never known: a moving client is for some seconds at neither subscriber, and their
announcements are older still. So a load is an interval, and a client moves only if the move is right for every value
within the intervals. Therefore no client moves back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.addresses import SubscriberId

# Rebalancing begins at the first difference and ends at the second. Each is a part of the mean load, and at least
# this number of clients: loads always vary a little, and a moved client has to connect again.
BEGIN, BEGIN_MIN = 0.25, 10
END, END_MIN = 0.05, 2


class Load(NamedTuple):
    """The load of a live subscriber, in clients: at least, at most; how many may leave it, and how many its cluster.

    `accepts` is false for a subscriber that cannot yet serve a client that resumes.
    """

    least: int
    most: int
    may_move: int
    may_leave: int
    accepts: bool = True


class Shift(NamedTuple):
    """A number of clients to move from one subscriber to another."""

    source: SubscriberId
    target: SubscriberId
    clients: int


def mean(loads: Mapping[SubscriberId, Load]) -> float:
    """Return the mean load."""
    return sum(load.least + load.most for load in loads.values()) / (2 * max(1, len(loads)))


def tolerance(loads: Mapping[SubscriberId, Load], active: bool) -> int:
    """Return the largest accepted difference between two subscribers; it is smaller while rebalancing is `active`."""
    part, least = (END, END_MIN) if active else (BEGIN, BEGIN_MIN)
    return max(least, int(part * mean(loads)))


def shifts(loads: Mapping[SubscriberId, Load], allowed: int, limit: int) -> list[Shift]:
    """Return moves of at most `limit` clients, each from a more to a less loaded subscriber, widest difference first.

    A difference of at most `allowed` (1 or more) is accepted. After a move the source never has fewer clients than
    the target.
    """
    left = dict(loads)
    middle = mean(loads)
    result: list[Shift] = []
    while limit > 0:
        widest = _widest(left, allowed)
        if widest is None:
            break
        source, target = widest
        giver, taker = left[source], left[target]
        free = giver.may_move if source.cluster == target.cluster else giver.may_leave
        # The source goes down to the mean at most and the target up to it: a surplus may be needed by several targets.
        clients = min(limit, free, max(1, int(min(giver.least - middle, middle - taker.most))))
        left[source] = giver._replace(
            least=giver.least - clients,
            may_move=giver.may_move - clients,
            may_leave=max(0, giver.may_leave - clients),
        )
        left[target] = taker._replace(most=taker.most + clients)
        result.append(Shift(source, target, clients))
        limit -= clients
    return result


def _widest(loads: Mapping[SubscriberId, Load], allowed: int) -> tuple[SubscriberId, SubscriberId] | None:
    """Return the two subscribers with the widest difference above `allowed` between which a client may move."""
    best: tuple[int, SubscriberId, SubscriberId] | None = None
    takers = sorted((load.most, subscriber_id) for subscriber_id, load in loads.items() if load.accepts)
    for source, giver in loads.items():
        for most, target in takers:
            if target == source or not (giver.may_move if target.cluster == source.cluster else giver.may_leave):
                continue
            difference = giver.least - most
            if difference > allowed and (best is None or (difference, source) > best[:2]):
                best = (difference, source, target)
            # The following takers have higher loads.
            break
    return None if best is None else best[1:]
