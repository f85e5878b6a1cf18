"""Restarts: how often a stage may die."""

from __future__ import annotations

from pipeline.supervisor.restarts import DEATHS_MAX, WITHIN_S, Deaths, is_hopeless


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
