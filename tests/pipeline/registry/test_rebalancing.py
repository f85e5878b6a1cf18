"""Rebalancing with simulated clients, which need time to connect and to be counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration
from pipeline.registry.assignments import Assignments
from pipeline.registry.rebalancing import ARRIVED_NS, STEADY_NS, Rebalancer

S = 1_000_000_000
START = 1_000 * S
A, B, C = SubscriberId("1", "a"), SubscriberId("1", "b"), SubscriberId("1", "c")


def announce(subscriber_id: SubscriberId, clients: int, now_ns: int, held: tuple[str, ...] = ()) -> Announcement:
    """Return an announcement of a subscriber that has sent a window."""
    return Announcement(
        subscriber_id.subscriber, subscriber_id.cluster, subscriber_id.key, clients, now_ns, "e:1", held
    )


class Crowd:
    """Subscribers that announce themselves every second, and clients that need `lag_s` to connect after a move."""

    def __init__(self, per_s: int = 20, lag_s: int = 2) -> None:
        self.now_ns = START
        self.assignments = Assignments(silent_s=5)
        self.rebalancer = Rebalancer(silent_s=5, per_s=per_s)
        self.lag_s = lag_s
        self.open: dict[SubscriberId, set[str]] = {}
        self.connecting: dict[str, tuple[SubscriberId, int]] = {}
        self.silent: set[SubscriberId] = set()
        self.announced_ns: dict[SubscriberId, int] = {}
        self.moves: list[tuple[int, str, SubscriberId, SubscriberId]] = []

    def add(self, subscriber_id: SubscriberId, clients: int, asked: str | None = None, watching: bool = True) -> None:
        """Add a subscriber, or more clients to it; the clients hold a stream if `watching`."""
        held = self.open.setdefault(subscriber_id, set())
        for _ in range(clients):
            client_id = f"{subscriber_id.key}-{len(self.assignments)}"
            self.assignments.apply_registration(
                client_id, Registration(client_id, "d", *subscriber_id, self.now_ns, "sse", asked)
            )
            if watching:
                held.add(client_id)

    def second(self) -> int:
        """Simulate one second; return the number of moved clients."""
        self.now_ns += S
        for client_id, (subscriber_id, when_ns) in list(self.connecting.items()):
            if when_ns <= self.now_ns:
                del self.connecting[client_id]
                self.open[subscriber_id].add(client_id)
                self.rebalancer.connecting(client_id, subscriber_id, self.now_ns)
        for subscriber_id, held in self.open.items():
            if subscriber_id not in self.silent:
                ids = tuple(sorted(held))
                announcement = announce(subscriber_id, len(held), self.now_ns, ids)
                self.assignments.apply_announcement(subscriber_id, announcement)
                self.announced_ns[subscriber_id] = self.now_ns
        moves = self.rebalancer.step(self.assignments, self.now_ns)
        for registration in moves:
            target = SubscriberId(registration.cluster, registration.subscriber)
            source = next(
                (subscriber_id for subscriber_id, held in self.open.items() if registration.client_id in held), None
            )
            if source is not None:
                self.open[source].remove(registration.client_id)
                self.connecting[registration.client_id] = (target, self.now_ns + self.lag_s * S)
                self.moves.append((self.now_ns, registration.client_id, source, target))
            assert self.now_ns - self.announced_ns[target] < 2.5 * S, "moved to a silent subscriber"
        return len(moves)

    def seconds(self, count: int) -> int:
        """Simulate some seconds; return the number of moved clients."""
        return sum(self.second() for _ in range(count))

    def counts(self) -> list[int]:
        """Return the number of open streams of each subscriber."""
        return [len(self.open[subscriber_id]) for subscriber_id in sorted(self.open)]


@hypothesis_settings(max_examples=25)
@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=4),
    st.integers(3, 60),
    st.integers(0, 6),
)
# The first target gets more than the second, whose arriving clients count twice for a moment.
@example(counts=[0, 0, 18], per_s=5, lag_s=0)
def test_loads_even_out_and_no_client_moves_twice(counts: list[int], per_s: int, lag_s: int) -> None:
    """For any rate and connection delay the loads become even, no client moves back, and then nothing moves."""
    crowd = Crowd(per_s, lag_s)
    for n, clients in enumerate(counts):
        crowd.add(SubscriberId("1", str(n)), clients)
    steps = []
    for _ in range(40 + 4 * sum(counts) // per_s):
        steps.append(crowd.second())
    mean = sum(counts) / len(counts)
    assert sum(crowd.counts()) == sum(counts) == len(crowd.assignments)
    assert max(steps, default=0) <= per_s
    assert not any(steps[:9])
    assert max(crowd.counts()) - min(crowd.counts()) <= max(10, mean / 4)
    assert set(Counter(client_id for _, client_id, _, _ in crowd.moves).values()) <= {1}
    assert crowd.seconds(20) == 0


def test_newly_connected_clients_are_not_moved() -> None:
    """If only one of two subscribers has announced its new clients, their loads do not differ."""
    crowd = Crowd(per_s=50)
    crowd.add(A, 20)
    crowd.add(B, 20)
    assert crowd.seconds(STEADY_NS // S + 5) == 0
    for _ in range(5):
        # B's announcement is one second old: it does not count the newest clients.
        late = len(crowd.open[B])
        for subscriber_id in (A, B):
            crowd.add(subscriber_id, 250)
            for client_id in sorted(crowd.open[subscriber_id])[-250:]:
                crowd.rebalancer.connecting(client_id, subscriber_id, crowd.now_ns)
        crowd.now_ns += S
        for subscriber_id, clients in ((A, len(crowd.open[A])), (B, late)):
            crowd.assignments.apply_announcement(subscriber_id, announce(subscriber_id, clients, crowd.now_ns))
        assert crowd.rebalancer.step(crowd.assignments, crowd.now_ns) == []


def test_new_subscriber_gets_its_share_after_ten_seconds() -> None:
    """Nothing moves in its first ten seconds, then at most `per_s` clients per second until the loads are even."""
    crowd = Crowd(per_s=20)
    crowd.add(A, 300)
    crowd.add(B, 300)
    assert crowd.seconds(20) == 0
    crowd.add(C, 0)
    assert crowd.seconds(STEADY_NS // S) == 0
    assert crowd.second() == 20
    crowd.seconds(60)
    assert min(crowd.counts()) >= 185
    assert sum(crowd.counts()) == 600
    assert {target for _, _, _, target in crowd.moves} == {C}


def test_nothing_moves_while_a_subscriber_pauses_or_restarts() -> None:
    """A silence of three seconds stops moves until ten seconds after it; so does a changed address."""
    crowd = Crowd(per_s=1)
    crowd.add(A, 300)
    crowd.add(B, 100)
    assert crowd.seconds(15) > 0
    crowd.silent.add(B)
    crowd.seconds(2)
    assert crowd.seconds(2) == 0
    crowd.silent.clear()
    assert crowd.seconds(STEADY_NS // S) == 0
    assert crowd.second() == 1
    announcement = Announcement("b", "1", "http://elsewhere", 100, crowd.now_ns + S, "e:1")
    crowd.silent.add(B)
    crowd.assignments.apply_announcement(B, announcement)
    assert crowd.second() == 0


def test_dead_subscriber_takes_no_part_in_moves() -> None:
    """The remaining subscribers are balanced without it."""
    crowd = Crowd(per_s=20)
    crowd.add(A, 200)
    crowd.add(B, 0)
    crowd.add(C, 50)
    crowd.second()
    crowd.silent.add(C)
    crowd.seconds(60)
    assert len(crowd.open[C]) == 50
    assert abs(len(crowd.open[A]) - len(crowd.open[B])) <= 25
    assert {target for _, _, _, target in crowd.moves} == {B}


def test_only_clients_with_a_stream_are_moved() -> None:
    """A registration without a stream for minutes stays: its client is not connected."""
    crowd = Crowd(per_s=10)
    crowd.add(A, 500, watching=False)
    crowd.now_ns += 200 * S
    crowd.add(A, 100)
    crowd.add(B, 0)
    crowd.seconds(40)
    assert crowd.counts() == [50, 50] or abs(crowd.counts()[0] - 50) <= 7
    assert all(client_id in crowd.open[B] for _, client_id, _, _ in crowd.moves)


def test_client_that_asked_for_a_cluster_stays_in_it() -> None:
    """The other clients move to a new cluster."""
    crowd = Crowd(per_s=20)
    crowd.add(A, 100, asked="1")
    crowd.add(A, 100)
    other = SubscriberId("2", "a")
    crowd.add(other, 0)
    crowd.seconds(60)
    stayed = [crowd.assignments.client(client_id) for client_id in crowd.open[A]]
    assert sum(client is not None and client.asked == "1" for client in stayed) == 100
    assert 80 <= len(crowd.open[other]) <= 100


def test_subscriber_without_a_window_accepts_no_client() -> None:
    """A client that resumes there would get a reset for all earlier windows."""
    assignments, rebalancer = Assignments(silent_s=5), Rebalancer(silent_s=5, per_s=10)
    for n in range(100):
        assignments.apply_registration(f"c{n}", Registration(f"c{n}", "d", *A, START))
    moved = []
    for second in range(1, 30):
        now_ns = START + second * S
        last = "e:1" if second > 20 else None
        assignments.apply_announcement(A, Announcement("a", "1", "http://a", 100 - len(moved), now_ns, "e:1"))
        assignments.apply_announcement(B, Announcement("b", "1", "http://b", len(moved), now_ns, last))
        moved += rebalancer.step(assignments, now_ns)
        assert bool(moved) is (second > 20)


def test_moved_client_that_never_connects_is_expected_for_ten_seconds() -> None:
    """After that its load counts at neither subscriber; its record still names the new one."""
    crowd = Crowd(per_s=5, lag_s=10_000)
    crowd.add(A, 60)
    crowd.add(B, 20)
    crowd.seconds(11)
    first = len(crowd.moves)
    assert first > 0
    crowd.seconds(ARRIVED_NS // S + 20)
    assert len(crowd.connecting) == len(crowd.moves) > first
    assert all(crowd.assignments.client(client_id).subscriber == "b" for _, client_id, _, _ in crowd.moves)  # type: ignore[union-attr]


@pytest.mark.parametrize("subscribers", [[], [A]])
def test_fewer_than_two_subscribers_move_nothing(subscribers: list[SubscriberId]) -> None:
    """An empty registry, and a single subscriber."""
    crowd = Crowd()
    for subscriber_id in subscribers:
        crowd.add(subscriber_id, 50)
    assert crowd.seconds(30) == 0


def test_moves_per_s_0_moves_nothing() -> None:
    """`moves_per_s=0` switches rebalancing off."""
    crowd = Crowd(per_s=0)
    crowd.add(A, 500)
    crowd.add(B, 0)
    assert crowd.seconds(30) == 0
