"""The search for a capacity: its interval holds the truth, it ends and resumes, and INVALID probes decide nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.stats.capacity import (
    FEWEST_PROBES,
    MOST_RUNS,
    Probe,
    Search,
    capacity,
    difference,
    next_load,
    passing,
    unmeasurable,
)
from pipeline.errors import SettingError

SEARCH = Search("rate_per_s", 500, 20_000, 20)


def carry_out(search: Search, system: Callable[[float], Probe]) -> list[Probe]:
    """Return the probes of a whole search of `system`."""
    results: list[Probe] = []
    while (load := next_load(search, results)) is not None:
        results.append(system(load))
        assert len(results) <= MOST_RUNS
    return results


def step(threshold: float) -> Callable[[float], Probe]:
    """Return a system that passes up to `threshold`."""
    return lambda load: Probe(load, load <= threshold)


@settings(max_examples=15, deadline=None)
@given(st.floats(700, 15_000), st.integers(0, 1000))
def test_the_threshold_of_a_step_is_inside_a_narrow_interval(threshold: float, seed: int) -> None:
    """Without scatter the interval is within a fifth of the threshold, wherever that is."""
    search = Search("rate_per_s", 500, 20_000, 20, seed)
    found = capacity(search, carry_out(search, step(threshold)))
    assert found.ended
    assert found.low is not None
    assert found.high is not None
    assert found.low <= threshold * 1.01
    assert found.high >= threshold * 0.97
    assert found.high / found.low < 1.35


def test_a_search_resumes_from_its_results_and_its_seed() -> None:
    """Cut off after any probe it goes on the same way; another seed takes another way."""
    results = carry_out(SEARCH, step(3_000))
    assert len(results) == SEARCH.probes
    for cut in range(len(results)):
        assert next_load(SEARCH, results[:cut]) == results[cut].load
        assert not capacity(SEARCH, results[:cut]).ended
    other = Search("rate_per_s", 500, 20_000, 20, seed=2)
    assert [probe.load for probe in carry_out(other, step(3_000))] != [probe.load for probe in results]


def test_loads_near_the_limit_go_up_and_down() -> None:
    """A drift of the machine must not look like an effect of the load: the order is no ramp."""
    loads = [probe.load for probe in carry_out(SEARCH, step(3_000))][5:]
    rises = sum(b > a for a, b in itertools.pairwise(loads))
    assert 3 <= rises <= len(loads) - 4


def test_capacity_beyond_the_loads_has_one_limit() -> None:
    """Every probe passes: a lower limit and no upper one; every probe fails: the reverse."""
    above, below = (capacity(SEARCH, carry_out(SEARCH, step(at))) for at in (1e6, 1.0))
    assert above.low is not None
    assert above.low > 10_000
    assert above.high is None
    assert below.low is None
    assert below.high is not None
    assert below.high < 1_000
    assert above.passed == above.probes == 20
    assert below.passed == 0


def test_few_probes_state_nothing() -> None:
    """Five valid probes give counts and no interval, and no difference."""
    few = [Probe(load, load < 1000) for load in (500.0, 700.0, 900.0, 1200.0, 2000.0)]
    found = capacity(SEARCH, few)
    assert (found.estimate, found.low, found.high, found.probes, found.passed) == (None, None, None, 5, 3)
    assert difference(SEARCH, few, SEARCH, carry_out(SEARCH, step(3_000))) is None
    assert capacity(SEARCH, [*few, Probe(800.0, True)]).high is not None
    assert len(few) + 1 == FEWEST_PROBES


def test_loads_that_stay_invalid_bound_nothing() -> None:
    """Where the generator gives up no load is probed again, and the capacity has no upper limit."""

    def system(load: float) -> Probe:
        return Probe(load, passed=load <= 2_000, valid=load <= 2_000)

    results = carry_out(SEARCH, system)
    ceiling = unmeasurable(results)
    assert ceiling > 2_000
    for load in {probe.load for probe in results if not probe.valid}:
        assert [probe.load for probe in results].count(load) == 3
    found = capacity(SEARCH, results)
    assert found.high is None
    assert found.low is not None
    assert found.low <= 2_000


def test_an_invalid_run_is_repeated_and_counts_for_nothing() -> None:
    """INVALID by chance: the same load again, and the result is that of the valid probes alone."""
    first = next_load(SEARCH, [])
    assert first is not None
    bad = Probe(first, passed=False, valid=False)
    assert next_load(SEARCH, [bad]) == next_load(SEARCH, [bad, bad]) == first
    results = carry_out(SEARCH, step(3_000))
    assert capacity(SEARCH, [*results[:4], *[bad] * 3, *results[4:]]) == capacity(SEARCH, results)
    higher = Probe(first * 2, passed=False)
    assert unmeasurable([bad] * 3) == first
    assert unmeasurable([bad, bad, bad, higher]) == math.inf


def test_one_lapse_far_below_moves_the_capacity_little() -> None:
    """A run that failed by accident at a low load is not taken for the limit."""
    results = carry_out(SEARCH, step(3_000))
    before, after = capacity(SEARCH, results), capacity(SEARCH, [*results, Probe(600.0, passed=False)])
    assert before.estimate is not None
    assert after.estimate is not None
    assert after.estimate > 0.8 * before.estimate


def test_chance_of_a_pass_falls_with_the_load_through_the_capacity() -> None:
    """The curve and its band: high below, 0.9 at the capacity, low above, and in order."""
    results = carry_out(SEARCH, step(3_000))
    found = capacity(SEARCH, results)
    assert found.estimate is not None
    low, middle, high = passing(SEARCH, results, np.array([600.0, found.estimate, 12_000.0]))
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert middle[0] > 0.95
    assert middle[1] == pytest.approx(0.9, abs=0.04)
    assert middle[2] < 0.05


def test_twice_the_capacity_is_found_and_the_same_is_not() -> None:
    """The ratio of two searches, both ways round, and what could have been detected."""
    a = carry_out(SEARCH, step(3_000))
    other = Search("rate_per_s", 500, 20_000, 20, seed=9)
    b, same = carry_out(other, step(6_000)), carry_out(other, step(3_000))
    twice = difference(SEARCH, a, other, b)
    assert twice is not None
    assert twice.supported
    assert twice.low < 2 < twice.high
    back = difference(other, b, SEARCH, a)
    assert back is not None
    assert back.ratio == pytest.approx(1 / twice.ratio, rel=0.02)
    alike = difference(SEARCH, a, other, same)
    assert alike is not None
    assert not alike.supported
    assert 1.02 < alike.detectable < 1.5
    open_end = difference(SEARCH, a, other, carry_out(other, step(1e6)))
    assert open_end is not None
    assert math.isinf(open_end.high)
    assert open_end.low > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"factor": ""}, "search factor is ''"),
        ({"least": 0}, "search least is 0"),
        ({"least": "500"}, "search least is '500'"),
        ({"most": 520}, r"search most is 520: give a number from 1.1 times least \(550\) up"),
        ({"probes": 5}, "search probes is 5: give a whole number from 6 to 25"),
        ({"probes": 26}, "search probes is 26"),
        ({"least": float("nan")}, "search least is nan"),
    ],
)
def test_a_search_that_cannot_be_made_names_the_field(change: dict, words: str) -> None:
    """Each field is checked, with the value seen and the remedy."""
    with pytest.raises(SettingError, match=words):
        Search(**{"factor": "rate_per_s", "least": 500, "most": 20_000, "probes": 20, **change})
