"""What is wrong is said, and what is usual is not."""

from __future__ import annotations

import pytest

from pipeline.messages import Announcement, Window
from pipeline.registry.web.alerts import Facts, Member, alerts

NS = 1_000_000_000
NOW = 1_800_000_000 * NS


def a_window(number: int, age_s: float) -> Window:
    """An empty window of epoch e."""
    return Window("e", number, 0, NOW - round(age_s * NS), {}, 0, [])


def a_member(live: bool = True, last: str | None = "e:20") -> Member:
    """Subscriber 1/a."""
    return Member(Announcement("a", "1", "http://a", 3, NOW, last), live)


WELL = Facts(
    trigger_s=6.0,
    now_ns=NOW,
    lag=700,
    arriving_per_s=100.0,
    batch_s=0.4,
    reported_ns=NOW - 7 * NS,
    unreadable=None,
    newest=a_window(20, 5),
    members=[a_member()],
)


def said(**changes: object) -> list[str]:
    """What `alerts` says of a chain that is well but for `changes`."""
    return [found.what for found in alerts(WELL._replace(**changes))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lag": 0, "reported_ns": NOW - 3600 * NS},
        {"lag": None, "arriving_per_s": None, "batch_s": None, "reported_ns": None, "newest": None},
        {"lag": 99, "arriving_per_s": 0.0},
        {"members": [a_member(last="e:18")]},
        {"members": [a_member(last="old:400")]},
        {"members": [a_member(last=None)]},
    ],
)
def test_a_chain_that_is_well_has_no_troubles(changes: dict[str, object]) -> None:
    """Idle, young, a trigger's worth of lag, a window on its way, a new epoch's beginning: all usual."""
    assert said(**changes) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"unreadable": "no broker"}, "Kafka cannot be read"),
        ({"batch_s": 6.5}, "Micro-batches take longer than the trigger"),
        ({"reported_ns": NOW - 40 * NS}, "Spark is silent"),
        ({"lag": 2000}, "Spark falls behind"),
        ({"lag": 101, "arriving_per_s": None}, "Spark falls behind"),
        ({"members": []}, "Nobody serves clients"),
        ({"members": [a_member(), a_member(live=False)]}, "A subscriber is silent"),
        ({"members": [a_member(last="e:17")]}, "A subscriber is behind"),
        ({"members": [a_member(last="e:19")], "newest": a_window(20, 13)}, "A subscriber is behind"),
        ({"members": [a_member(last="old:400")], "newest": a_window(20, 13)}, "A subscriber is behind"),
        ({"members": [a_member(last="nonsense")], "newest": a_window(20, 13)}, "A subscriber is behind"),
    ],
)
def test_each_trouble_is_named(changes: dict[str, object], what: str) -> None:
    """One cause, one trouble."""
    assert said(**changes) == [what]


def test_details_carry_the_figures() -> None:
    """An operator reads how bad it is."""
    (found,) = alerts(WELL._replace(lag=2000))
    assert "2,000 reactions wait, where 1,200 would be usual" in found.detail
    (found,) = alerts(WELL._replace(members=[a_member(last="e:10")]))
    assert found.detail == "1/a is 10 windows behind"
