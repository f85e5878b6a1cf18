"""Evening out: it converges, moves no more than it may, and leaves alone what is even."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import SubscriberId
from pipeline.registry.balance import Load, Shift, shifts, tolerance

PLACES = st.builds(SubscriberId, st.sampled_from("123"), st.sampled_from("abcd"))
CLIENTS = st.integers(0, 400)


@st.composite
def uncertain_loads(draw: st.DrawFn) -> dict[SubscriberId, Load]:
    """Subscribers of several clusters, their loads known only within bounds, some of whom take nobody."""
    loads = {}
    for place in draw(st.lists(PLACES, min_size=0, max_size=8, unique=True)):
        least, may_move = draw(CLIENTS), draw(CLIENTS)
        most = least + draw(st.integers(0, 50))
        loads[place] = Load(least, most, may_move, draw(st.integers(0, may_move)), draw(st.booleans()))
    return loads


def known(*clients: int, pinned: bool = False) -> dict[SubscriberId, Load]:
    """One subscriber with so many clients in each of as many clusters, or all in one."""
    return {
        SubscriberId("1" if pinned else str(n), str(n)): Load(count, count, count, 0 if pinned else count)
        for n, count in enumerate(clients)
    }


def settled(loads: dict[SubscriberId, Load], moves: list[Shift]) -> dict[SubscriberId, Load]:
    """What the loads are when everyone has arrived."""
    counts = {place: load.least for place, load in loads.items()}
    for source, target, clients in moves:
        counts[source] -= clients
        counts[target] += clients
    return {
        place: load._replace(
            least=counts[place],
            most=counts[place],
            may_move=counts[place],
            may_leave=min(load.may_leave, counts[place]),
        )
        for place, load in loads.items()
    }


@given(uncertain_loads(), st.integers(1, 20), st.integers(0, 100))
def test_no_step_moves_more_than_it_may(loads: dict[SubscriberId, Load], allowed: int, limit: int) -> None:
    """Not more than the limit, not more than may leave a place or its cluster, nobody to who takes nobody."""
    moves = shifts(loads, allowed, limit)
    assert sum(clients for _, _, clients in moves) <= limit
    for source, target, clients in moves:
        assert clients > 0
        assert source != target
        assert loads[target].takes
    for place, load in loads.items():
        given = [move for move in moves if move.source == place]
        assert sum(move.clients for move in given) <= load.may_move
        abroad = [move for move in given if move.target.cluster != place.cluster]
        assert sum(move.clients for move in abroad) <= load.may_leave


@given(uncertain_loads(), st.integers(1, 20), st.integers(0, 1000))
def test_no_move_turns_a_difference_round(loads: dict[SubscriberId, Load], allowed: int, limit: int) -> None:
    """Wherever within its bounds the truth lies, who gave still carries no less than who took."""
    least = {place: load.least for place, load in loads.items()}
    most = {place: load.most for place, load in loads.items()}
    for source, target, clients in shifts(loads, allowed, limit):
        least[source] -= clients
        most[target] += clients
        assert least[source] >= most[target]


@given(uncertain_loads(), st.integers(1, 20))
def test_what_is_left_alone_is_even_or_may_not_move(loads: dict[SubscriberId, Load], allowed: int) -> None:
    """Without a move no permitted difference exceeds what is allowed."""
    if shifts(loads, allowed, 1):
        return
    for source, giver in loads.items():
        for target, taker in loads.items():
            free = giver.may_move if source.cluster == target.cluster else giver.may_leave
            assert target == source or not free or not taker.takes or giver.least - taker.most <= allowed


@given(st.lists(CLIENTS, min_size=1, max_size=7), st.integers(1, 10), st.integers(1, 100), st.booleans())
def test_it_converges_and_then_stands_still(counts: list[int], allowed: int, limit: int, pinned: bool) -> None:
    """In no more steps than the surplus needs loads are even; nobody is lost, nothing moves again."""
    loads = known(*counts, pinned=pinned)
    mean = sum(counts) / len(counts)
    surplus = sum(max(0, count - mean) for count in counts)
    steps = moved = 0
    while moves := shifts(loads, allowed, limit):
        before = sum(load.least**2 for load in loads.values())
        loads = settled(loads, moves)
        moved += sum(move.clients for move in moves)
        assert sum(load.least**2 for load in loads.values()) < before
        steps += 1
    final = [load.least for load in loads.values()]
    assert sum(final) == sum(counts)
    assert max(final) - min(final) <= allowed
    # Nobody moves twice: what is moved is what was too much, less what is left alone, but for rounding.
    assert moved <= surplus + len(counts)
    assert steps <= moved / limit + len(counts) + 1


def test_a_new_subscriber_is_filled_from_all_others() -> None:
    """Each of three gives a part, at most so many a step."""
    loads = known(100, 100, 100, 0)
    assert sum(move.clients for move in shifts(loads, 2, 50)) == 50
    moves = shifts(loads, 2, 1000)
    assert {move.target for move in moves} == {SubscriberId("3", "3")}
    assert [load.least for load in settled(loads, moves).values()] == [75, 75, 75, 75]


def test_who_asked_for_a_cluster_stays_in_it() -> None:
    """A crowd that may not leave its cluster evens out within, though another is empty."""
    loads = {
        SubscriberId("1", "a"): Load(90, 90, 90, 0),
        SubscriberId("1", "b"): Load(10, 10, 10, 0),
        SubscriberId("2", "a"): Load(0, 0, 0, 0),
    }
    moves = shifts(loads, 2, 1000)
    assert {(move.source, move.target) for move in moves} == {(SubscriberId("1", "a"), SubscriberId("1", "b"))}
    assert sum(move.clients for move in moves) in (39, 40)


@pytest.mark.parametrize(
    ("counts", "active", "expected"),
    [((0, 0), False, 10), ((400, 0), False, 50), ((400, 0), True, 10), ((0,), True, 2)],
)
def test_a_difference_that_began_an_evening_out_is_wider_than_one_that_ends_it(
    counts: tuple[int, ...], active: bool, expected: int
) -> None:
    """A quarter of the mean begins it, a twentieth ends it, but never over a handful of clients."""
    assert tolerance(known(*counts), active) == expected


def test_nobody_is_no_reason_to_move() -> None:
    """No subscribers, or one alone."""
    assert shifts({}, 1, 10) == []
    assert shifts(known(1000), 1, 10) == []
