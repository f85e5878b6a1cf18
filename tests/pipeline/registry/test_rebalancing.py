"""Clients move while everyone watches: against a crowd that takes its time to connect and to be counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration
from pipeline.registry.assignments import Assignments
from pipeline.registry.rebalancing import COME_NS, STEADY_NS, Rebalancer

S = 1_000_000_000
START = 1_000 * S
A, B, C = SubscriberId("1", "a"), SubscriberId("1", "b"), SubscriberId("1", "c")


class Crowd:
    """Subscribers that announce every second, and clients that need `lag_s` to come back to where they were moved."""

    def __init__(self, per_s: int = 20, lag_s: int = 2) -> None:
        self.now_ns = START
        self.roster = Assignments(silent_s=5)
        self.rebalancer = Rebalancer(silent_s=5, per_s=per_s)
        self.lag_s = lag_s
        self.open: dict[SubscriberId, set[str]] = {}
        self.coming: dict[str, tuple[SubscriberId, int]] = {}
        self.silent: set[SubscriberId] = set()
        self.heard_ns: dict[SubscriberId, int] = {}
        self.moves: list[tuple[int, str, SubscriberId, SubscriberId]] = []

    def come(self, place: SubscriberId, clients: int, asked: str | None = None, watching: bool = True) -> None:
        """Let a subscriber come with so many clients, registered there and watching, or not watching."""
        held = self.open.setdefault(place, set())
        for _ in range(clients):
            client_id = f"{place.key}-{len(self.roster)}"
            self.roster.hear_registration(client_id, Registration(client_id, "d", *place, self.now_ns, "sse", asked))
            if watching:
                held.add(client_id)

    def second(self) -> int:
        """Let a second pass; return how many clients moved."""
        self.now_ns += S
        for client_id, (place, when_ns) in list(self.coming.items()):
            if when_ns <= self.now_ns:
                del self.coming[client_id]
                self.open[place].add(client_id)
                self.rebalancer.came(client_id, place, self.now_ns)
        for place, held in self.open.items():
            if place not in self.silent:
                said = Announcement(
                    place.subscriber, place.cluster, place.key, len(held), self.now_ns, "e:1", tuple(sorted(held))
                )
                self.roster.hear_announcement(place, said)
                self.heard_ns[place] = self.now_ns
        moves = self.rebalancer.step(self.roster, self.now_ns)
        for registration in moves:
            target = SubscriberId(registration.cluster, registration.subscriber)
            source = next((place for place, held in self.open.items() if registration.client_id in held), None)
            if source is not None:
                self.open[source].remove(registration.client_id)
                self.coming[registration.client_id] = (target, self.now_ns + self.lag_s * S)
                self.moves.append((self.now_ns, registration.client_id, source, target))
            assert self.now_ns - self.heard_ns[target] < 2.5 * S, "moved to a silent subscriber"
        return len(moves)

    def seconds(self, count: int) -> int:
        """Let some pass; return how many clients moved."""
        return sum(self.second() for _ in range(count))

    def counts(self) -> list[int]:
        """The open streams, by place."""
        return [len(self.open[place]) for place in sorted(self.open)]


@hypothesis_settings(max_examples=25)
@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=4),
    st.integers(3, 60),
    st.integers(0, 6),
)
def test_a_crowd_evens_out_and_nobody_is_moved_twice(counts: list[int], per_s: int, lag_s: int) -> None:
    """Whatever the rate and however slowly clients come back: even in the end, never swinging back, then at rest."""
    crowd = Crowd(per_s, lag_s)
    for n, clients in enumerate(counts):
        crowd.come(SubscriberId("1", str(n)), clients)
    steps = []
    for _ in range(40 + 4 * sum(counts) // per_s):
        steps.append(crowd.second())
    mean = sum(counts) / len(counts)
    assert sum(crowd.counts()) == sum(counts) == len(crowd.roster)
    assert max(steps, default=0) <= per_s
    assert not any(steps[:9])
    assert max(crowd.counts()) - min(crowd.counts()) <= max(10, mean / 4)
    assert set(Counter(client_id for _, client_id, _, _ in crowd.moves).values()) <= {1}
    assert crowd.seconds(20) == 0


def test_a_crowd_that_is_just_arriving_is_left_alone() -> None:
    """One subscriber has announced the newcomers, the other not yet: that is no difference to even out."""
    crowd = Crowd(per_s=50)
    crowd.come(A, 20)
    crowd.come(B, 20)
    assert crowd.seconds(STEADY_NS // S + 5) == 0
    for _ in range(5):
        # A second behind: of B it is not known yet who came in the last one.
        late = len(crowd.open[B])
        for place in (A, B):
            crowd.come(place, 250)
            for client_id in sorted(crowd.open[place])[-250:]:
                crowd.rebalancer.came(client_id, place, crowd.now_ns)
        crowd.now_ns += S
        for place, clients in ((A, len(crowd.open[A])), (B, late)):
            said = Announcement(place.subscriber, place.cluster, place.key, clients, crowd.now_ns, "e:1")
            crowd.roster.hear_announcement(place, said)
        assert crowd.rebalancer.step(crowd.roster, crowd.now_ns) == []


def test_a_new_subscriber_gets_its_share_when_it_has_been_there_for_a_while() -> None:
    """Nothing moves in its first ten seconds, then at most so many a second, until it carries as much as the others."""
    crowd = Crowd(per_s=20)
    crowd.come(A, 300)
    crowd.come(B, 300)
    assert crowd.seconds(20) == 0
    crowd.come(C, 0)
    assert crowd.seconds(STEADY_NS // S) == 0
    assert crowd.second() == 20
    crowd.seconds(60)
    assert min(crowd.counts()) >= 185
    assert sum(crowd.counts()) == 600
    assert {target for _, _, _, target in crowd.moves} == {C}


def test_nothing_moves_while_a_subscriber_pauses_or_comes_again() -> None:
    """A silence of three seconds stops evening out for ten more after it; so does an address that changed."""
    crowd = Crowd(per_s=1)
    crowd.come(A, 300)
    crowd.come(B, 100)
    assert crowd.seconds(15) > 0
    crowd.silent.add(B)
    crowd.seconds(2)
    assert crowd.seconds(2) == 0
    crowd.silent.clear()
    assert crowd.seconds(STEADY_NS // S) == 0
    assert crowd.second() == 1
    said = Announcement("b", "1", "http://elsewhere", 100, crowd.now_ns + S, "e:1")
    crowd.silent.add(B)
    crowd.roster.hear_announcement(B, said)
    assert crowd.second() == 0


def test_a_dead_subscriber_neither_gives_nor_takes_and_the_others_go_on() -> None:
    """Its silence is final: those that are left even out among themselves."""
    crowd = Crowd(per_s=20)
    crowd.come(A, 200)
    crowd.come(B, 0)
    crowd.come(C, 50)
    crowd.second()
    crowd.silent.add(C)
    crowd.seconds(60)
    assert len(crowd.open[C]) == 50
    assert abs(len(crowd.open[A]) - len(crowd.open[B])) <= 25
    assert {target for _, _, _, target in crowd.moves} == {B}


def test_only_who_watches_is_moved() -> None:
    """Registrations whose streams nobody has seen for minutes stay where they are: their clients are not there."""
    crowd = Crowd(per_s=10)
    crowd.come(A, 500, watching=False)
    crowd.now_ns += 200 * S
    crowd.come(A, 100)
    crowd.come(B, 0)
    crowd.seconds(40)
    assert crowd.counts() == [50, 50] or abs(crowd.counts()[0] - 50) <= 7
    assert all(client_id in crowd.open[B] for _, client_id, _, _ in crowd.moves)


def test_who_asked_for_a_cluster_is_not_led_to_another() -> None:
    """The others go to a cluster that came, as soon as it can serve who resumes."""
    crowd = Crowd(per_s=20)
    crowd.come(A, 100, asked="1")
    crowd.come(A, 100)
    other = SubscriberId("2", "a")
    crowd.come(other, 0)
    crowd.seconds(60)
    stayed = [crowd.roster.client(client_id) for client_id in crowd.open[A]]
    assert sum(one is not None and one.asked == "1" for one in stayed) == 100
    assert 80 <= len(crowd.open[other]) <= 100


def test_a_subscriber_without_a_window_takes_nobody() -> None:
    """Who resumes there would be told that all before is lost."""
    roster, rebalancer = Assignments(silent_s=5), Rebalancer(silent_s=5, per_s=10)
    for n in range(100):
        roster.hear_registration(f"c{n}", Registration(f"c{n}", "d", *A, START))
    moved = []
    for second in range(1, 30):
        now_ns = START + second * S
        last = "e:1" if second > 20 else None
        roster.hear_announcement(A, Announcement("a", "1", "http://a", 100 - len(moved), now_ns, "e:1"))
        roster.hear_announcement(B, Announcement("b", "1", "http://b", len(moved), now_ns, last))
        moved += rebalancer.step(roster, now_ns)
        assert bool(moved) is (second > 20)


def test_a_client_that_never_comes_is_waited_for_only_so_long() -> None:
    """Its load counts at neither place after ten seconds, and its record names the new place all the same."""
    crowd = Crowd(per_s=5, lag_s=10_000)
    crowd.come(A, 60)
    crowd.come(B, 20)
    crowd.seconds(11)
    first = len(crowd.moves)
    assert first > 0
    crowd.seconds(COME_NS // S + 20)
    assert len(crowd.coming) == len(crowd.moves) > first
    assert all(crowd.roster.client(client_id).subscriber == "b" for _, client_id, _, _ in crowd.moves)  # type: ignore[union-attr]


@pytest.mark.parametrize("places", [[], [A]])
def test_with_fewer_than_two_nothing_is_to_be_done(places: list[SubscriberId]) -> None:
    """An empty registry and a lone subscriber."""
    crowd = Crowd()
    for place in places:
        crowd.come(place, 50)
    assert crowd.seconds(30) == 0


def test_a_rate_of_zero_moves_nobody() -> None:
    """`moves_per_s=0` switches it off."""
    crowd = Crowd(per_s=0)
    crowd.come(A, 500)
    crowd.come(B, 0)
    assert crowd.seconds(30) == 0
