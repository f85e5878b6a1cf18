"""Restarts: how often a stage may die, and how long it waits."""

from __future__ import annotations

import pytest

from pipeline.supervisor.restarts import (
    AT_ONCE,
    DEATHS_MAX,
    PAUSE_MOST_S,
    RECOVERED_S,
    WITHIN_S,
    Deaths,
    is_hopeless,
    pause_s,
)


def test_stage_that_dies_too_often_within_the_time_is_given_up() -> None:
    """The sixth death within a minute is the first that is not followed by another start."""
    deaths = Deaths()
    counts = [deaths.count("spark", n * WITHIN_S / 10) for n in range(DEATHS_MAX)]
    assert counts == list(range(1, DEATHS_MAX + 1))
    assert [is_hopeless(count) for count in counts] == [False] * (DEATHS_MAX - 1) + [True]


def test_old_deaths_do_not_count() -> None:
    """A stage that dies once per minute is restarted without end."""
    deaths = Deaths()
    assert {deaths.count("spark", n * (WITHIN_S + 1)) for n in range(50)} == {1}
    assert deaths.recent("spark", 50 * (WITHIN_S + 1)) == 0


def test_stages_are_counted_separately_and_can_be_forgotten() -> None:
    """A stage that was stopped on purpose and comes back has not died."""
    deaths = Deaths()
    assert [deaths.count(name, 0.0) for name in ("spark", "ingest", "spark")] == [1, 1, 2]
    deaths.forget("spark")
    deaths.forget("unknown")
    assert [deaths.count(name, 1.0) for name in ("spark", "ingest")] == [1, 2]


def test_pauses_grow_until_the_stage_has_recovered() -> None:
    """At once the first times, then doubled up to the most, half of it drawn; after a quiet time at once again."""
    deaths = Deaths()
    waits = []
    for number in range(10):
        deaths.count("spark", number * (RECOVERED_S - 1))
        waits.append((pause_s(deaths.in_a_row("spark"), lambda: 0.0), pause_s(deaths.in_a_row("spark"), lambda: 1.0)))
    most = [0.0] * AT_ONCE + [1.0, 2.0, 4.0, 8.0, 16.0] + [PAUSE_MOST_S] * 3
    assert waits == [(pytest.approx(each / 2), pytest.approx(each)) for each in most]
    deaths.count("spark", 11 * RECOVERED_S)
    assert deaths.in_a_row("spark") == 1
    assert deaths.in_a_row("ingest") == 0
    deaths.forget("spark")
    assert deaths.in_a_row("spark") == 0
    assert pause_s(10_000, lambda: 1.0) == PAUSE_MOST_S
