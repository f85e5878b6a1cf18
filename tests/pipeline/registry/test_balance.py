"""Balance: it converges, moves no more clients than allowed, and accepts small differences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import SubscriberId
from pipeline.registry.balance import Load, Shift, shifts, tolerance

SUBSCRIBERS = st.builds(SubscriberId, st.sampled_from("123"), st.sampled_from("abcd"))
CLIENTS = st.integers(0, 400)


@st.composite
def uncertain_loads(draw: st.DrawFn) -> dict[SubscriberId, Load]:
    """Subscribers of several clusters with loads known within bounds; some do not accept clients."""
    loads = {}
    for subscriber_id in draw(st.lists(SUBSCRIBERS, min_size=0, max_size=8, unique=True)):
        least, may_move = draw(CLIENTS), draw(CLIENTS)
        most = least + draw(st.integers(0, 50))
        loads[subscriber_id] = Load(least, most, may_move, draw(st.integers(0, may_move)), draw(st.booleans()))
    return loads


def known(*clients: int, pinned: bool = False) -> dict[SubscriberId, Load]:
    """Subscribers with these numbers of clients, each in a cluster of its own, or all in one."""
    return {
        SubscriberId("1" if pinned else str(n), str(n)): Load(count, count, count, 0 if pinned else count)
        for n, count in enumerate(clients)
    }


def settled(loads: dict[SubscriberId, Load], moves: list[Shift]) -> dict[SubscriberId, Load]:
    """Return the loads after all moved clients have connected."""
    counts = {subscriber_id: load.least for subscriber_id, load in loads.items()}
    for source, target, clients in moves:
        counts[source] -= clients
        counts[target] += clients
    return {
        subscriber_id: load._replace(
            least=counts[subscriber_id],
            most=counts[subscriber_id],
            may_move=counts[subscriber_id],
            may_leave=min(load.may_leave, counts[subscriber_id]),
        )
        for subscriber_id, load in loads.items()
    }


@given(uncertain_loads(), st.integers(1, 20), st.integers(0, 100))
def test_step_moves_no_more_than_allowed(loads: dict[SubscriberId, Load], allowed: int, limit: int) -> None:
    """Limits hold per step, subscriber and cluster; no client goes to a subscriber that does not accept clients."""
    moves = shifts(loads, allowed, limit)
    assert sum(clients for _, _, clients in moves) <= limit
    for source, target, clients in moves:
        assert clients > 0
        assert source != target
        assert loads[target].accepts
    for subscriber_id, load in loads.items():
        given = [move for move in moves if move.source == subscriber_id]
        assert sum(move.clients for move in given) <= load.may_move
        abroad = [move for move in given if move.target.cluster != subscriber_id.cluster]
        assert sum(move.clients for move in abroad) <= load.may_leave


@given(uncertain_loads(), st.integers(1, 20), st.integers(0, 1000))
def test_source_never_ends_below_its_target(loads: dict[SubscriberId, Load], allowed: int, limit: int) -> None:
    """For every load within the bounds, the source still has at least as many clients as the target."""
    least = {subscriber_id: load.least for subscriber_id, load in loads.items()}
    most = {subscriber_id: load.most for subscriber_id, load in loads.items()}
    for source, target, clients in shifts(loads, allowed, limit):
        least[source] -= clients
        most[target] += clients
        assert least[source] >= most[target]


@given(uncertain_loads(), st.integers(1, 20))
def test_without_a_move_no_permitted_difference_is_too_wide(loads: dict[SubscriberId, Load], allowed: int) -> None:
    """If nothing moves, every difference is within `allowed` or no client may move."""
    if shifts(loads, allowed, 1):
        return
    for source, giver in loads.items():
        for target, taker in loads.items():
            free = giver.may_move if source.cluster == target.cluster else giver.may_leave
            assert target == source or not free or not taker.accepts or giver.least - taker.most <= allowed


@given(st.lists(CLIENTS, min_size=1, max_size=7), st.integers(1, 10), st.integers(1, 100), st.booleans())
def test_loads_converge_and_then_stay(counts: list[int], allowed: int, limit: int, pinned: bool) -> None:
    """The loads become even in as many steps as the surplus needs; no client is lost or moved again."""
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
    # No client moves twice: at most the surplus moves, apart from rounding.
    assert moved <= surplus + len(counts)
    assert steps <= moved / limit + len(counts) + 1


def test_new_subscriber_gets_clients_from_all_others() -> None:
    """Each of three gives a part, at most `limit` clients per step."""
    loads = known(100, 100, 100, 0)
    assert sum(move.clients for move in shifts(loads, 2, 50)) == 50
    moves = shifts(loads, 2, 1000)
    assert {move.target for move in moves} == {SubscriberId("3", "3")}
    assert [load.least for load in settled(loads, moves).values()] == [75, 75, 75, 75]


def test_clients_that_asked_for_a_cluster_stay_in_it() -> None:
    """Clients that may not leave their cluster are balanced within it, even if another cluster is empty."""
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
def test_tolerance_is_smaller_while_rebalancing(counts: tuple[int, ...], active: bool, expected: int) -> None:
    """Rebalancing begins at a quarter of the mean and ends at a twentieth, each with a minimum."""
    assert tolerance(known(*counts), active) == expected


def test_fewer_than_two_subscribers_give_no_shift() -> None:
    """With no subscriber, or with one, nothing moves."""
    assert shifts({}, 1, 10) == []
    assert shifts(known(1000), 1, 10) == []
