"""The clockwork: every action in the order of its moment, none before it."""

from __future__ import annotations

import time

import pytest

from experiments.twin.clockwork import Clockwork
from tests.harness.waiting import until


@pytest.fixture
def clockwork():
    """One that is closed at the end."""
    made = Clockwork(lambda: None)
    made.start()
    yield made
    made.close()


def test_actions_come_in_order_and_never_early(clockwork):
    """Planned in any order, called at their moments."""
    now_ns = time.time_ns()
    called: list[tuple[int, int]] = []
    moments = [now_ns + delay * 1_000_000 for delay in (40, 10, 30, 20)]
    for moment in moments:
        clockwork.at(moment, lambda due=moment: called.append((due, time.time_ns())))
    until(lambda: len(called) == 4, "all actions are called")
    assert [due for due, _ in called] == sorted(moments)
    assert all(due <= at for due, at in called)


def test_action_may_plan_another(clockwork):
    """As each flush plans the next."""
    called: list[int] = []

    def again():
        called.append(time.time_ns())
        if len(called) < 3:
            clockwork.at(called[-1] + 1_000_000, again)

    clockwork.at(0, again)
    until(lambda: len(called) == 3, "three actions are called")
    assert called == sorted(called)


def test_failed_action_ends_it_and_is_kept():
    """A twin whose clockwork stands still must not look like a slow chain."""
    failed: list[str] = []
    made = Clockwork(lambda: failed.append("once"))
    made.start()
    made.at(0, lambda: 1 / 0)
    until(lambda: failed, "the failure is reported")
    made.close()
    assert failed == ["once"]
    assert isinstance(made.failure, ZeroDivisionError)
