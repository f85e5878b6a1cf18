"""The registry's decisions: who is live, where clients go, what the topics may change."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import SubscriberId, base_url
from pipeline.messages import Announcement, Registration, Transport
from pipeline.registry.assignments import Assignments
from pipeline.registry.views import client_view

S = 1_000_000_000
NOW = 1_000 * S


def announcement(cluster: str, subscriber: str, clients: int = 0, at: int = NOW) -> Announcement:
    """A sign of life."""
    return Announcement(subscriber, cluster, f"http://{cluster}{subscriber}", clients, at)


def hear(roster: Assignments, *announcements: Announcement) -> None:
    """Let `roster` hear them."""
    for said in announcements:
        roster.hear_announcement(SubscriberId(said.cluster, said.subscriber), said)


def roster_of(*announcements: Announcement) -> Assignments:
    """A roster that heard `announcements`; 5 s of silence are too many."""
    roster = Assignments(silent_s=5)
    hear(roster, *announcements)
    return roster


def test_the_least_loaded_subscriber_of_the_least_loaded_cluster_is_chosen() -> None:
    """Load is weighed a subscriber, so that a cluster of two takes twice as many."""
    roster = roster_of(
        announcement("1", "a", 10),
        announcement("1", "b", 30),
        announcement("2", "a", 25),
        announcement("3", "a", 40),
    )
    assert roster.choose(NOW) == announcement("1", "a", 10)
    assert roster.choose(NOW, "2") == announcement("2", "a", 25)


def test_nobody_is_chosen_when_nobody_is_live() -> None:
    """Silence, another cluster's life and emptiness all give None."""
    roster = roster_of(announcement("1", "a", at=NOW - 5 * S), announcement("2", "a"))
    assert roster.choose(NOW, "1") is None
    assert Assignments(5).choose(NOW) is None
    assert roster.register("x", "token", NOW, "1") is None
    assert len(roster) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 300))
def test_a_burst_between_two_announcements_spreads(loads: list[int], burst: int) -> None:
    """However loaded they were, no subscriber that was given a client ends up more than one above another."""
    roster = roster_of(*(announcement("1", str(n), load) for n, load in enumerate(loads)))
    given = Counter(roster.register(f"c{n}", "t", NOW).subscriber for n in range(burst))  # type: ignore[union-attr]
    after = [load + given[str(n)] for n, load in enumerate(loads)]
    assert all(after[int(name)] <= min(after) + 1 for name in given)


def test_those_who_never_connect_spread_too() -> None:
    """Among equally loaded subscribers, the one with fewer registrations comes next."""
    roster = roster_of(announcement("1", "a"), announcement("1", "b"))
    places = []
    for n in range(4):
        places.append(roster.register(f"c{n}", "t", NOW).subscriber)  # type: ignore[union-attr]
        hear(roster, announcement("1", "a"), announcement("1", "b"))
    assert places == ["a", "b", "a", "b"]


def test_an_announcement_replaces_what_was_counted_since_the_one_before() -> None:
    """Clients given since count once: with the next announcement they are part of its load, or never came."""
    roster = roster_of(announcement("1", "a"), announcement("1", "b", 2))
    assert [roster.register(f"c{n}", "t", NOW) for n in range(2)] != [None, None]
    hear(roster, announcement("1", "a", 1))
    assert roster.choose(NOW) == announcement("1", "a", 1)


def test_a_client_stays_while_its_subscriber_lives() -> None:
    """A lighter subscriber is no reason to move."""
    roster = roster_of(announcement("1", "a"))
    roster.register("x", "t", NOW)
    hear(roster, announcement("1", "a", 99), announcement("1", "b", 0))
    seat = roster.seat("x", NOW)
    assert seat is not None
    assert (seat.subscriber.subscriber, seat.moved) == ("a", False)


@pytest.mark.parametrize("gone", ["silent", "tombstone"])
def test_a_client_moves_when_its_subscriber_is_gone(gone: str) -> None:
    """After 5 s of silence, or at once after a clean exit, the stream is at a live one of the cluster."""
    roster = roster_of(announcement("1", "a"))
    first = roster.register("x", "t", NOW)
    assert first is not None
    hear(roster, announcement("1", "b", 50, NOW + 5 * S), announcement("2", "a", 0, NOW + 5 * S))
    if gone == "tombstone":
        roster.hear_announcement(SubscriberId("1", "a"), None)
    seat = roster.seat("x", NOW + 5 * S)
    assert seat is not None
    assert seat.moved
    assert (seat.registration.cluster, seat.registration.subscriber) == ("1", "b")
    assert seat.registration.token_sha256 == first.token_sha256
    again = roster.seat("x", NOW + 5 * S)
    assert again is not None
    assert not again.moved


def test_a_client_of_a_cluster_that_is_gone_moves_to_another() -> None:
    """A view cut differently is better than none; with nobody at all there is no seat."""
    roster = roster_of(announcement("1", "a"))
    roster.register("x", "t", NOW)
    roster.hear_announcement(SubscriberId("1", "a"), None)
    assert roster.seat("x", NOW) is None
    hear(roster, announcement("2", "a"))
    seat = roster.seat("x", NOW)
    assert seat is not None
    assert seat.registration.cluster == "2"
    with pytest.raises(KeyError):
        roster.seat("nobody", NOW)


def test_records_the_roster_has_overtaken_change_nothing() -> None:
    """The echo of a registration comes after a move or a removal and does not undo it."""
    roster = roster_of(announcement("1", "a"))
    first = roster.register("x", "t", NOW)
    roster.hear_announcement(SubscriberId("1", "a"), None)
    hear(roster, announcement("1", "b"))
    roster.seat("x", NOW)
    roster.hear_registration("x", first)
    assert roster.client("x").subscriber == "b"  # type: ignore[union-attr]
    roster.remove("x")
    roster.hear_registration("x", first)
    assert roster.client("x") is None
    roster.hear_registration("x", None)
    assert len(roster) == 0


def test_a_removal_that_kafka_did_not_take_is_taken_back() -> None:
    """The client is registered again, and hears its records again."""
    roster = roster_of(announcement("1", "a"))
    registration = roster.register("x", "t", NOW)
    roster.restore(roster.remove("x"))
    assert roster.client("x") == registration
    later = msgspec.structs.replace(registration, subscriber="z", registered_ns=NOW + 1)
    roster.hear_registration("x", later)
    assert roster.client("x") == later


def test_a_roster_is_rebuilt_from_the_topics() -> None:
    """Registrations and tombstones alone give the same roster, old announcements no life."""
    registrations = [Registration(f"c{n}", "d", "1", "a", NOW + n) for n in range(3)]
    roster = roster_of(announcement("1", "a", at=NOW - 100 * S))
    for registration in registrations:
        roster.hear_registration(registration.client_id, registration)
    roster.hear_registration("c1", None)
    assert roster.clients("", 10) == [registrations[0], registrations[2]]
    assert roster.clients("c0", 1) == [registrations[2]]
    assert not roster.is_held("c0", NOW)
    assert roster.live(NOW) == []
    assert [held.subscriber for held in roster.subscribers()] == ["a"]


def test_a_client_is_led_back_to_the_cluster_it_asked_for() -> None:
    """Its cluster's death leads it elsewhere, and the death of its new place home, if that lives again."""
    roster = roster_of(announcement("1", "a"), announcement("2", "a"))
    roster.register("x", "t", NOW, "1", "websocket")
    roster.hear_announcement(SubscriberId("1", "a"), None)
    seat = roster.seat("x", NOW)
    assert seat is not None
    assert (seat.registration.cluster, seat.registration.asked, seat.registration.transport) == ("2", "1", "websocket")
    roster.hear_announcement(SubscriberId("2", "a"), None)
    hear(roster, announcement("1", "a", 9), announcement("3", "a"))
    seat = roster.seat("x", NOW)
    assert seat is not None
    assert seat.registration.cluster == "1"


def test_a_move_is_newer_than_what_it_replaces() -> None:
    """Also within one tick of the clock, so that nobody takes the old place for the later word."""
    roster = roster_of(announcement("1", "a"), announcement("1", "b"))
    first = roster.register("x", "t", NOW)
    assert first is not None
    moved = roster.move("x", SubscriberId("1", "b"), NOW)
    assert moved == msgspec.structs.replace(first, subscriber="b", registered_ns=NOW + 1)
    roster.hear_registration("x", first)
    assert roster.client("x") == moved
    assert (roster.registered(SubscriberId("1", "a")), roster.registered(SubscriberId("1", "b"))) == (0, 1)
    assert roster.assigned(SubscriberId("1", "b")) == 1


def test_clients_are_seen_when_they_come_and_when_they_are_held() -> None:
    """Those seen last come first; a client that is named elsewhere than where it is registered is seen as well."""
    roster = roster_of(announcement("1", "a"))
    for n in range(4):
        roster.register(f"c{n}", "t", NOW)
    roster.seat("c1", NOW + 5 * S - 1)
    held = msgspec.structs.replace(announcement("1", "z", at=NOW + 3 * S), held=("c0", "nobody"))
    hear(roster, held)
    place = SubscriberId("1", "a")
    assert [one.client_id for one in roster.seen_at(place, NOW)] == ["c0", "c1", "c3", "c2"]
    assert [one.client_id for one in roster.seen_at(place, NOW + 1)] == ["c0", "c1"]


def test_the_long_gone_are_those_nobody_has_seen() -> None:
    """At most so many at once, none before the roster has watched for as long, and none that is still held."""
    roster = Assignments(5, started_ns=NOW)
    for n in range(5):
        roster.hear_registration(f"c{n}", Registration(f"c{n}", "d", "1", "a", NOW - 900 * S + n))
    assert roster.long_gone(NOW, 9) == []
    hear(roster, msgspec.structs.replace(announcement("1", "a", at=NOW + 60 * S), held=("c0", "c3")))
    assert roster.long_gone(NOW + 1, 2) == ["c1", "c2"]
    assert roster.long_gone(NOW + 1, 9) == ["c1", "c2", "c4"]
    assert roster.long_gone(NOW + 61 * S, 9) == ["c1", "c2", "c4", "c0", "c3"]


def test_a_registration_that_was_not_kept_leaves_nothing() -> None:
    """And its record counts if it comes all the same: whoever wrote it believes in it."""
    roster = roster_of(announcement("1", "a"))
    first = roster.register("x", "t", NOW)
    roster.forget("x")
    assert (len(roster), roster.registered(SubscriberId("1", "a"))) == (0, 0)
    roster.hear_registration("x", first)
    assert len(roster) == 1


@pytest.mark.parametrize(("transport", "path"), [("sse", "stream"), ("websocket", "socket"), ("poll", "windows")])
def test_the_stream_url_is_that_of_the_transport(transport: Transport, path: str) -> None:
    """Each transport is served at a path of its own."""
    shown = client_view(Registration("x", "digest", "1", "a", NOW, transport, "1"), "http://r", live=True)
    assert (shown["transport"], shown["stream_url"]) == (transport, f"http://r/clients/x/{path}")


def test_a_view_never_shows_the_tokens_digest() -> None:
    """What anyone may see of a client opens nothing."""
    shown = client_view(Registration("x", "digest", "1", "a", NOW), "http://r", live=True)
    assert "digest" not in str(shown)
    assert shown["stream_url"] == "http://r/clients/x/stream"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("", "127.0.0.1", 80), "http://127.0.0.1:80"),
        (("", "::1", 80), "http://[::1]:80"),
        (("https://a/b/", "127.0.0.1", 80), "https://a/b"),
    ],
)
def test_a_stages_url_can_be_called(arguments: tuple[str, str, int], expected: str) -> None:
    """An override wins, an IPv6 address gets its brackets."""
    assert base_url(*arguments) == expected


def test_a_wildcard_address_is_named_after_the_machine() -> None:
    """Nobody elsewhere can call 0.0.0.0."""
    assert "0.0.0.0" not in base_url("", "0.0.0.0", 80)
