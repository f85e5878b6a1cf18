"""How many clients go from which subscriber to which, so that the loads even out. Pure.

What a subscriber carries is never known exactly: a client that was told to move is for some seconds at neither place,
and what the places say of it is older still. So a load is an interval, and a client moves only where that is right
wherever within it the truth lies. Nothing then swings back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.addresses import SubscriberId

# Evening out begins at the first difference and ends at the second, each a part of the mean load, and at least so
# many clients: crowds come and go, and who is moved has to connect again.
BEGIN, BEGIN_MIN = 0.25, 10
END, END_MIN = 0.05, 2


class Load(NamedTuple):
    """What a live subscriber carries, in clients: at least, at most; how many may leave it, how many its cluster too.

    One that `takes` nobody cannot serve a client that resumes yet.
    """

    least: int
    most: int
    may_move: int
    may_leave: int
    takes: bool = True


class Shift(NamedTuple):
    """So many clients from one place to another."""

    source: SubscriberId
    target: SubscriberId
    clients: int


def mean(loads: Mapping[SubscriberId, Load]) -> float:
    """The mean load."""
    return sum(load.least + load.most for load in loads.values()) / (2 * max(1, len(loads)))


def tolerance(loads: Mapping[SubscriberId, Load], active: bool) -> int:
    """The difference between two places that is left alone; a smaller one once evening out is under way."""
    part, least = (END, END_MIN) if active else (BEGIN, BEGIN_MIN)
    return max(least, int(part * mean(loads)))


def shifts(loads: Mapping[SubscriberId, Load], allowed: int, limit: int) -> list[Shift]:
    """Return moves of at most `limit` clients, each from a more to a less loaded place, the widest difference first.

    A difference of `allowed`, 1 or more, is left alone. No place gives so much that the one it gives to may end up
    above it.
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
        # Down to the mean and up to it, no further: what one place has too much of, several may lack.
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
    """The pair of places with the widest difference above `allowed` that a client may lessen."""
    best: tuple[int, SubscriberId, SubscriberId] | None = None
    takers = sorted((load.most, place) for place, load in loads.items() if load.takes)
    for source, giver in loads.items():
        for most, target in takers:
            if target == source or not (giver.may_move if target.cluster == source.cluster else giver.may_leave):
                continue
            difference = giver.least - most
            if difference > allowed and (best is None or (difference, source) > best[:2]):
                best = (difference, source, target)
            # The takers that follow are fuller.
            break
    return None if best is None else best[1:]
