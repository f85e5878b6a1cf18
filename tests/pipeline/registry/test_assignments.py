"""The registry's decisions: which subscribers are live, where clients go, and what records change."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration
from pipeline.registry.assignments import Assignments

S = 1_000_000_000
NOW = 1_000 * S


def announcement(cluster: str, subscriber: str, clients: int = 0, at: int = NOW) -> Announcement:
    """An announcement with a URL made of its names."""
    return Announcement(subscriber, cluster, f"http://{cluster}{subscriber}", clients, at)


def announce(assignments: Assignments, *announcements: Announcement) -> None:
    """Apply `announcements` to `assignments`."""
    for each in announcements:
        assignments.apply_announcement(SubscriberId(each.cluster, each.subscriber), each)


def assignments_of(*announcements: Announcement) -> Assignments:
    """Return assignments with `announcements` applied and `silent_s` 5."""
    assignments = Assignments(silent_s=5)
    announce(assignments, *announcements)
    return assignments


def test_least_loaded_subscriber_of_the_least_loaded_cluster_is_chosen() -> None:
    """A cluster's load is per subscriber, so that a cluster of two takes twice as many clients."""
    assignments = assignments_of(
        announcement("1", "a", 10),
        announcement("1", "b", 30),
        announcement("2", "a", 25),
        announcement("3", "a", 40),
    )
    assert assignments.choose(NOW) == announcement("1", "a", 10)
    assert assignments.choose(NOW, "2") == announcement("2", "a", 25)


def test_without_a_live_subscriber_none_is_chosen() -> None:
    """A silent subscriber, a live one in another cluster, and no subscriber at all give None."""
    assignments = assignments_of(announcement("1", "a", at=NOW - 5 * S), announcement("2", "a"))
    assert assignments.choose(NOW, "1") is None
    assert Assignments(5).choose(NOW) is None
    assert assignments.register("x", "token", NOW, "1") is None
    assert len(assignments) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 300))
def test_burst_between_two_announcements_spreads(loads: list[int], burst: int) -> None:
    """No subscriber that gets a client ends up with more than one client above another."""
    assignments = assignments_of(*(announcement("1", str(n), load) for n, load in enumerate(loads)))
    given = Counter(assignments.register(f"c{n}", "t", NOW).subscriber for n in range(burst))  # type: ignore[union-attr]
    after = [load + given[str(n)] for n, load in enumerate(loads)]
    assert all(after[int(name)] <= min(after) + 1 for name in given)


def test_clients_that_never_connect_spread_too() -> None:
    """Among equally loaded subscribers, the one with fewer registrations is chosen."""
    assignments = assignments_of(announcement("1", "a"), announcement("1", "b"))
    subscribers = []
    for n in range(4):
        subscribers.append(assignments.register(f"c{n}", "t", NOW).subscriber)  # type: ignore[union-attr]
        announce(assignments, announcement("1", "a"), announcement("1", "b"))
    assert subscribers == ["a", "b", "a", "b"]


def test_announcement_replaces_the_clients_assigned_since_the_last_one() -> None:
    """Assigned clients count once: the next announcement includes them, or they never connected."""
    assignments = assignments_of(announcement("1", "a"), announcement("1", "b", 2))
    assert [assignments.register(f"c{n}", "t", NOW) for n in range(2)] != [None, None]
    announce(assignments, announcement("1", "a", 1))
    assert assignments.choose(NOW) == announcement("1", "a", 1)


def test_client_stays_while_its_subscriber_is_live() -> None:
    """A less loaded subscriber does not make a client move."""
    assignments = assignments_of(announcement("1", "a"))
    assignments.register("x", "t", NOW)
    announce(assignments, announcement("1", "a", 99), announcement("1", "b", 0))
    assignment = assignments.assign("x", NOW)
    assert assignment is not None
    assert (assignment.subscriber.subscriber, assignment.moved) == ("a", False)


@pytest.mark.parametrize("gone", ["silent", "tombstone"])
def test_client_moves_when_its_subscriber_has_ended(gone: str) -> None:
    """After 5 s of silence, or at once after a tombstone, the client moves to a live subscriber of its cluster."""
    assignments = assignments_of(announcement("1", "a"))
    first = assignments.register("x", "t", NOW)
    assert first is not None
    announce(assignments, announcement("1", "b", 50, NOW + 5 * S), announcement("2", "a", 0, NOW + 5 * S))
    if gone == "tombstone":
        assignments.apply_announcement(SubscriberId("1", "a"), None)
    assignment = assignments.assign("x", NOW + 5 * S)
    assert assignment is not None
    assert assignment.moved
    assert (assignment.registration.cluster, assignment.registration.subscriber) == ("1", "b")
    assert assignment.registration.token_sha256 == first.token_sha256
    again = assignments.assign("x", NOW + 5 * S)
    assert again is not None
    assert not again.moved


def test_client_of_a_dead_cluster_moves_to_another() -> None:
    """Another cluster's view is better than no view; without a live subscriber there is no assignment."""
    assignments = assignments_of(announcement("1", "a"))
    assignments.register("x", "t", NOW)
    assignments.apply_announcement(SubscriberId("1", "a"), None)
    assert assignments.assign("x", NOW) is None
    announce(assignments, announcement("2", "a"))
    assignment = assignments.assign("x", NOW)
    assert assignment is not None
    assert assignment.registration.cluster == "2"
    with pytest.raises(KeyError):
        assignments.assign("nobody", NOW)


def test_older_records_change_nothing() -> None:
    """A registration's own record arrives after a move or a removal and does not undo it."""
    assignments = assignments_of(announcement("1", "a"))
    first = assignments.register("x", "t", NOW)
    assignments.apply_announcement(SubscriberId("1", "a"), None)
    announce(assignments, announcement("1", "b"))
    assignments.assign("x", NOW)
    assignments.apply_registration("x", first)
    assert assignments.client("x").subscriber == "b"  # type: ignore[union-attr]
    assignments.remove("x")
    assignments.apply_registration("x", first)
    assert assignments.client("x") is None
    assignments.apply_registration("x", None)
    assert len(assignments) == 0


def test_restore_undoes_a_removal() -> None:
    """The client is registered again, and its records are applied again."""
    assignments = assignments_of(announcement("1", "a"))
    registration = assignments.register("x", "t", NOW)
    assignments.restore(assignments.remove("x"))
    assert assignments.client("x") == registration
    later = msgspec.structs.replace(registration, subscriber="z", registered_ns=NOW + 1)
    assignments.apply_registration("x", later)
    assert assignments.client("x") == later


def test_assignments_are_rebuilt_from_the_topics() -> None:
    """Registrations and tombstones give the same state; an old announcement does not make a subscriber live."""
    registrations = [Registration(f"c{n}", "d", "1", "a", NOW + n) for n in range(3)]
    assignments = assignments_of(announcement("1", "a", at=NOW - 100 * S))
    for registration in registrations:
        assignments.apply_registration(registration.client_id, registration)
    assignments.apply_registration("c1", None)
    assert assignments.clients("", 10) == [registrations[0], registrations[2]]
    assert assignments.clients("c0", 1) == [registrations[2]]
    assert not assignments.has_live_subscriber("c0", NOW)
    assert assignments.live(NOW) == []
    assert [member.subscriber for member in assignments.subscribers()] == ["a"]


def test_client_returns_to_the_cluster_it_asked_for() -> None:
    """It leaves its dead cluster, and returns when its new subscriber dies and its cluster is live again."""
    assignments = assignments_of(announcement("1", "a"), announcement("2", "a"))
    assignments.register("x", "t", NOW, "1", "websocket")
    assignments.apply_announcement(SubscriberId("1", "a"), None)
    assignment = assignments.assign("x", NOW)
    assert assignment is not None
    assert (assignment.registration.cluster, assignment.registration.asked, assignment.registration.transport) == (
        "2",
        "1",
        "websocket",
    )
    assignments.apply_announcement(SubscriberId("2", "a"), None)
    announce(assignments, announcement("1", "a", 9), announcement("3", "a"))
    assignment = assignments.assign("x", NOW)
    assert assignment is not None
    assert assignment.registration.cluster == "1"


def test_move_is_newer_than_the_registration_it_replaces() -> None:
    """This holds also at the same clock time, so that no reader prefers the old record."""
    assignments = assignments_of(announcement("1", "a"), announcement("1", "b"))
    first = assignments.register("x", "t", NOW)
    assert first is not None
    moved = assignments.move("x", SubscriberId("1", "b"), NOW)
    assert moved == msgspec.structs.replace(first, subscriber="b", registered_ns=NOW + 1)
    assignments.apply_registration("x", first)
    assert assignments.client("x") == moved
    assert (assignments.registered(SubscriberId("1", "a")), assignments.registered(SubscriberId("1", "b"))) == (0, 1)
    assert assignments.assigned(SubscriberId("1", "b")) == 1


def test_clients_are_seen_when_they_connect_and_when_they_are_held() -> None:
    """The last seen come first; a client that another subscriber holds is seen too."""
    assignments = assignments_of(announcement("1", "a"))
    for n in range(4):
        assignments.register(f"c{n}", "t", NOW)
    assignments.assign("c1", NOW + 5 * S - 1)
    held = msgspec.structs.replace(announcement("1", "z", at=NOW + 3 * S), held=("c0", "nobody"))
    announce(assignments, held)
    subscriber_id = SubscriberId("1", "a")
    assert [client.client_id for client in assignments.seen_since(subscriber_id, NOW)] == ["c0", "c1", "c3", "c2"]
    assert [client.client_id for client in assignments.seen_since(subscriber_id, NOW + 1)] == ["c0", "c1"]


def test_unopened_clients_are_those_that_no_subscriber_has_held() -> None:
    """Asking for a stream opens none; a move keeps the time of the registration, and a removed client is forgotten."""
    assignments = assignments_of(announcement("1", "a"))
    for n in range(5):
        assignments.register(f"c{n}", "t", NOW + n)
    assignments.apply_registration("old", Registration("old", "d", "1", "a", NOW - 900 * S))
    assert assignments.unopened_clients(NOW, 9) == []
    assignments.assign("c1", NOW + S)
    announce(assignments, msgspec.structs.replace(announcement("1", "a"), held=("c0", "old")))
    assignments.remove("c2")
    assignments.move("c3", SubscriberId("2", "b"), NOW + S)
    assert assignments.unopened_clients(NOW + 4, 9) == ["c1", "c3"]
    assert assignments.unopened_clients(NOW + S, 1) == ["c1"]


def test_unasked_clients_are_those_that_have_not_asked_for_their_stream() -> None:
    """Nor does a subscriber hold them; a move keeps the time, and a removed client is forgotten."""
    assignments = assignments_of(announcement("1", "a"))
    for n in range(5):
        assignments.register(f"c{n}", "t", NOW + n)
    assert assignments.unasked_clients(NOW, 9) == []
    assert assignments.unasked_clients(NOW + 4, 9) == ["c0", "c1", "c2", "c3"]
    assignments.assign("c1", NOW + S)
    announce(assignments, msgspec.structs.replace(announcement("1", "a"), held=("c0",)))
    assignments.remove("c2")
    assignments.move("c3", SubscriberId("2", "b"), NOW + S)
    assert assignments.unasked_clients(NOW + S, 9) == ["c3", "c4"]
    assert assignments.unasked_clients(NOW + S, 1) == ["c3"]


def test_idle_clients_are_those_not_seen_since() -> None:
    """At most `limit` are returned, none before the registry has run for the idle time, and no client that is held."""
    assignments = Assignments(5, started_ns=NOW)
    for n in range(5):
        assignments.apply_registration(f"c{n}", Registration(f"c{n}", "d", "1", "a", NOW - 900 * S + n))
    assert assignments.idle_clients(NOW, 9) == []
    announce(assignments, msgspec.structs.replace(announcement("1", "a", at=NOW + 60 * S), held=("c0", "c3")))
    assert assignments.idle_clients(NOW + 1, 2) == ["c1", "c2"]
    assert assignments.idle_clients(NOW + 1, 9) == ["c1", "c2", "c4"]
    assert assignments.idle_clients(NOW + 61 * S, 9) == ["c1", "c2", "c4", "c0", "c3"]


def test_forget_undoes_a_registration() -> None:
    """If its record arrives anyway, it is applied."""
    assignments = assignments_of(announcement("1", "a"))
    first = assignments.register("x", "t", NOW)
    assignments.forget("x")
    assert (len(assignments), assignments.registered(SubscriberId("1", "a"))) == (0, 0)
    assignments.apply_registration("x", first)
    assert len(assignments) == 1


def test_foreign_registrations_beyond_clients_max_are_not_taken() -> None:
    """They would fill the memory; known clients still move, and one that leaves makes room."""
    assignments = Assignments(5, clients_max=2)
    first, second, third = (Registration(name, "d", "1", "a", NOW) for name in "xyz")
    assert assignments.apply_registration("x", first)
    assert assignments.apply_registration("y", second)
    assert not assignments.apply_registration("z", third)
    assert assignments.apply_registration("x", msgspec.structs.replace(first, subscriber="b", registered_ns=NOW + 1))
    assert assignments.registered(SubscriberId("1", "b")) == 1
    assert assignments.client("z") is None
    assert assignments.apply_registration("y", None)
    assert assignments.apply_registration("z", third)
    assert len(assignments) == 2
