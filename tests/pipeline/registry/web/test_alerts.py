"""Every problem gives one alert, and usual states give none."""

from __future__ import annotations

import pytest

from pipeline.messages import Announcement, Window
from pipeline.registry.web.alerts import Facts, Member, alerts
from pipeline.units import NS_PER_S

NOW = 1_800_000_000 * NS_PER_S


def a_window(number: int, age_s: float) -> Window:
    """Return an empty window of epoch e."""
    return Window("e", number, 0, NOW - round(age_s * NS_PER_S), {}, 0, [])


def a_member(live: bool = True, last: str | None = "e:20") -> Member:
    """Return subscriber 1/a."""
    return Member(Announcement("a", "1", "http://a", 3, NOW, last), live, 0)


HEALTHY = Facts(
    trigger_s=6.0,
    now_ns=NOW,
    lag=700,
    arriving_per_s=100.0,
    batch_s=0.4,
    reported_ns=NOW - 7 * NS_PER_S,
    unreadable=None,
    newest=a_window(20, 5),
    members=[a_member()],
)


def titles(**changes: object) -> list[str]:
    """Return the alerts of a chain that is healthy apart from `changes`."""
    return [alert.title for alert in alerts(HEALTHY._replace(**changes))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lag": 0, "reported_ns": NOW - 3600 * NS_PER_S},
        {"lag": None, "arriving_per_s": None, "batch_s": None, "reported_ns": None, "newest": None},
        {"lag": 99, "arriving_per_s": 0.0},
        {"members": [a_member(last="e:18")]},
        {"members": [a_member(last="old:400")]},
        {"members": [a_member(last=None)]},
    ],
)
def test_healthy_chain_has_no_alerts(changes: dict[str, object]) -> None:
    """Idle, just started, lag of one trigger interval, a window on its way, a new epoch: all are usual."""
    assert titles(**changes) == []


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"unreadable": "no broker"}, "Kafka cannot be read"),
        ({"batch_s": 6.5}, "Micro-batches take longer than the trigger interval"),
        ({"reported_ns": NOW - 40 * NS_PER_S}, "Spark is silent"),
        ({"lag": 2000}, "Spark is falling behind"),
        ({"lag": 101, "arriving_per_s": None}, "Spark is falling behind"),
        ({"members": []}, "No subscriber is live"),
        ({"members": [a_member(), a_member(live=False)]}, "A subscriber is silent"),
        ({"members": [a_member(last="e:17")]}, "A subscriber is behind"),
        ({"members": [a_member(last="e:19")], "newest": a_window(20, 13)}, "A subscriber is behind"),
        ({"members": [a_member(last="old:400")], "newest": a_window(20, 13)}, "A subscriber is behind"),
        ({"members": [a_member(last="nonsense")], "newest": a_window(20, 13)}, "A subscriber is behind"),
    ],
)
def test_each_problem_gives_one_alert(changes: dict[str, object], title: str) -> None:
    """One cause gives one alert."""
    assert titles(**changes) == [title]


def test_details_have_the_figures() -> None:
    """An operator can read the size of the problem."""
    (alert,) = alerts(HEALTHY._replace(lag=2000))
    assert "2,000 reactions wait; up to 1,200 is usual" in alert.detail
    (alert,) = alerts(HEALTHY._replace(members=[a_member(last="e:10")]))
    assert alert.detail == "1/a is 10 windows behind"
