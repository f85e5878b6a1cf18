"""The limit on what one sender may send."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rate_limit import RateLimit, sender_of
from pipeline.units import NS_PER_S

HITS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 7), st.integers(0, 2 * NS_PER_S)), max_size=60)


@given(per_s=st.integers(1, 10), hits=HITS)
def test_user_never_exceeds_the_limit_in_a_second(per_s: int, hits: list[tuple[str, int, int]]) -> None:
    """Accepted costs stay within the limit, and a cost is refused only if it would exceed it."""
    limit = RateLimit(per_s)
    accepted: Counter[tuple[str, int]] = Counter()
    for user, cost, now_ns in sorted(hits, key=lambda hit: hit[2]):
        cell = (user, now_ns // NS_PER_S)
        fits = accepted[cell] + cost <= per_s
        assert limit.hit(user, cost, now_ns) is fits
        accepted[cell] += cost if fits else 0
    assert all(count <= per_s for count in accepted.values())


@given(per_s=st.integers(1, 10), costs=st.dictionaries(st.sampled_from("abc"), st.integers(1, 12)))
def test_costs_of_many_senders_count_together_or_not_at_all(per_s: int, costs: dict[str, int]) -> None:
    """One sender over the limit spends nothing of the others' allowance."""
    limit = RateLimit(per_s)
    over = [sender for sender, cost in costs.items() if cost > per_s]
    assert limit.first_over(costs, 0) == (over[0] if over else None)
    for sender in "abc":
        spent = 0 if over else costs.get(sender, 0)
        assert limit.hit(sender, per_s - spent, 0)
        assert not limit.hit(sender, 1, 0)


def test_zero_means_no_limit() -> None:
    """`rate_per_user_s=0` accepts everything."""
    limit = RateLimit(0)
    assert all(limit.hit("a", 1_000, 0) for _ in range(10))


def test_threads_share_one_count() -> None:
    """Many request threads together accept exactly the limit."""
    limit = RateLimit(500)
    barrier = threading.Barrier(8)
    passed: list[int] = []

    def hit() -> None:
        barrier.wait(20)
        passed.append(sum(limit.hit("a", 1, 0) for _ in range(200)))

    threads = [threading.Thread(target=hit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(passed) == 500


def test_forked_processes_share_one_count() -> None:
    """What one worker of ingest has counted, the others know."""
    limit = RateLimit(10)
    assert limit.hit("a", 6, 0)
    child = os.fork()
    if child == 0:
        os._exit(limit.hit("a", 3, 0) + 2 * limit.hit("a", 2, 0) + 4 * limit.hit("b", 10, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1 + 4
    assert not limit.hit("a", 2, 0)
    assert not limit.hit("b", 1, 0)
    assert limit.hit("a", 1, 0)
    assert limit.hit("b", 10, NS_PER_S)


def test_memory_does_not_grow_with_senders() -> None:
    """A window takes over the places of the last one; each of many senders is still counted by itself."""
    limit = RateLimit(1)
    for second in range(3):
        users = [f"{second}-{user}" for user in range(20_000)]
        assert all(limit.hit(user, 1, second * NS_PER_S) for user in users)
        assert sum(limit.hit(user, 1, second * NS_PER_S) for user in users) <= 2


def test_sender_without_a_place_is_not_limited() -> None:
    """The table has 131,072 places: nobody is refused because of the others."""
    limit = RateLimit(1)
    assert all(limit.hit(str(user), 1, 0) for user in range(150_000))


@given(window_s=st.integers(1, 90), now_ns=st.integers(0, 10**15))
def test_after_wait_s_the_sender_may_send_again(window_s: int, now_ns: int) -> None:
    """`wait_s` is between 1 and the window's length, and long enough."""
    limit = RateLimit(1, window_s)
    assert limit.hit("a", 1, now_ns)
    wait_s = limit.wait_s(now_ns)
    assert 1 <= wait_s <= window_s
    assert limit.hit("a", 1, now_ns + wait_s * NS_PER_S)
    assert not limit.hit("a", 1, now_ns + wait_s * NS_PER_S)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_sender_is_an_ipv4_address_or_an_ipv6_network(address: str, counted: str) -> None:
    """All IPv6 addresses of one /64 network are one sender: a household can use any of them."""
    assert sender_of(address) == counted


def test_looking_counts_nothing() -> None:
    """`is_over` says whether a cost would be refused, and leaves the sender its allowance."""
    limit = RateLimit(3)
    assert not any(limit.is_over("a", 3, 0) for _ in range(5))
    assert limit.is_over("a", 4, 0)
    assert limit.hit("a", 2, 0)
    assert not limit.is_over("a", 1, 0)
    assert limit.is_over("a", 2, 0)
    assert not RateLimit(0).is_over("a", 10**9, 0)
