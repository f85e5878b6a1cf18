"""The search for capacity: the truth is in its interval, it ends, and it is honest about noise and the INVALID."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.stats.capacity import MOST_PROBES, STEPS_DOWN, Probe, Search, capacity, next_load
from pipeline.errors import SettingError

SEARCH = Search("rate_per_s", 500, 1.5, 20_000, 0.1)


def carry_out(search: Search, system: Callable[[float], Probe]) -> list[Probe]:
    """Return the probes of a whole search of `system`."""
    results: list[Probe] = []
    while (load := next_load(search, results)) is not None:
        results.append(system(load))
        assert len(results) <= MOST_PROBES
    return results


def step(threshold: float) -> Callable[[float], Probe]:
    """Return a system that passes up to `threshold`."""
    return lambda load: Probe(load, load <= threshold)


@given(
    st.floats(25, 19_000),
    st.floats(100, 2_000),
    st.floats(1.2, 3),
    st.sampled_from([0.02, 0.05, 0.1, 0.25]),
)
def test_the_threshold_of_a_step_is_inside_the_interval(
    threshold: float, start: float, growth: float, resolution: float
):
    """Whatever start, growth and resolution, the interval holds the true threshold, is narrow and confirmed."""
    search = Search("rate_per_s", start, growth, 20_000, resolution)
    results = carry_out(search, step(threshold))
    found = capacity(search, results)
    if threshold < min(probe.load for probe in results):
        assert found.highest_pass is None
        assert found.lowest_fail is not None
        assert min(probe.load for probe in results) <= start / growth ** (STEPS_DOWN - 1)
        return
    assert found.highest_pass is not None
    assert found.highest_pass <= threshold
    assert found.confirmed
    assert [probe.passed for probe in results if probe.load == found.highest_pass] == [True, True]
    if found.lowest_fail is None:
        assert found.highest_pass == 20_000
    else:
        assert found.bounded_above
        assert threshold < found.lowest_fail
        assert found.lowest_fail <= found.highest_pass * (1 + resolution) * 1.001
        above = 1.1 * found.highest_pass
        tried = [probe for probe in results if abs(probe.load / above - 1) <= 0.021]
        assert above > 20_000 or any(not probe.passed for probe in tried), "1.1 C was not tried"


def test_a_search_as_designed_takes_a_dozen_probes():
    """The capacity design finds 3,000 reactions/s in at most 12 probes, confirmed at C and 1.1 C."""
    results = carry_out(SEARCH, step(3_000))
    assert len(results) <= 12
    assert [probe.load for probe in results[:5]] == [500, 750, 1125, 1688, 2532]
    found = capacity(SEARCH, results)
    assert found.highest_pass is not None
    assert any(not probe.passed and probe.load >= 1.075 * found.highest_pass for probe in results)
    assert "between rate_per_s" in found.why


@given(st.integers(0, 10_000), st.floats(0.05, 0.6), st.floats(0, 0.5))
def test_a_noisy_system_ends_with_an_interval_in_order(seed: int, width: float, invalid: float):
    """Passing at random, ever less likely with the load, and INVALID at random: it ends, and low is below high."""
    rng = np.random.default_rng(seed)

    def system(load: float) -> Probe:
        likely = 1 / (1 + (load / 3_000) ** (1 / width))
        return Probe(load, bool(rng.random() < likely), valid=bool(rng.random() >= invalid))

    results = carry_out(SEARCH, system)
    found = capacity(SEARCH, results)
    if found.highest_pass is not None and found.lowest_fail is not None:
        assert found.highest_pass < found.lowest_fail


def test_a_search_resumes_from_its_results():
    """The next load depends on the results alone: cut off after any probe, the search goes on the same way."""
    results = carry_out(SEARCH, step(3_000))
    for cut in range(len(results)):
        assert next_load(SEARCH, results[:cut]) == results[cut].load
        assert not capacity(SEARCH, results[:cut]).confirmed
    assert "has not ended" in capacity(SEARCH, results[:4]).why
    assert capacity(SEARCH, []).why.startswith("No load")


def test_invalid_load_is_repeated_once_and_gives_a_lower_bound():
    """Where the generator gives up there is no fail: the capacity is at least the highest pass, and that is said."""

    def system(load: float) -> Probe:
        return Probe(load, passed=False, valid=False) if load > 2_000 else Probe(load, passed=True)

    results = carry_out(SEARCH, system)
    found = capacity(SEARCH, results)
    assert found.highest_pass is not None
    assert 1_818 <= found.highest_pass <= 2_000
    assert found.lowest_fail is None
    assert not found.bounded_above
    assert "not measurable" in found.why
    for load in {probe.load for probe in results if not probe.valid}:
        assert [probe.load for probe in results].count(load) == 2


def test_an_invalid_run_that_succeeds_when_repeated_counts_for_nothing():
    """One INVALID run is repeated, and then the valid one decides."""
    first = [Probe(500, passed=False, valid=False)]
    assert next_load(SEARCH, first) == 500
    assert next_load(SEARCH, [*first, Probe(500, passed=True)]) == 750


def test_a_fail_below_a_pass_is_repeated_and_the_majority_decides():
    """A fail that stays one is the end of the interval; one that was chance is outvoted."""
    odd = [Probe(500, True), Probe(750, True), Probe(1125, False)]
    odd += [Probe(919, True), Probe(1_018, False), Probe(919, True), Probe(1_011, True)]
    found = capacity(SEARCH, odd)
    assert found.highest_pass == 1_011
    above = [Probe(500, True), Probe(750, False), Probe(1125, True)]
    assert next_load(SEARCH, above) == 750
    stays = [*above, Probe(750, False)]
    assert capacity(SEARCH, stays).lowest_fail == 750
    assert capacity(SEARCH, stays).highest_pass == 500
    assert "Not monotone: 1125 passed" in capacity(SEARCH, stays).why
    assert next_load(SEARCH, [*above, Probe(750, True)]) == 750
    outvoted = [*above, Probe(750, True), Probe(750, True)]
    assert capacity(SEARCH, outvoted).highest_pass == 1125
    assert next_load(SEARCH, outvoted) == 1688


def test_a_capacity_that_does_not_repeat_is_lowered():
    """C fails twice when it is confirmed: the interval moves below it."""
    results = carry_out(SEARCH, step(3_000))
    found = capacity(SEARCH, results).highest_pass
    once = next(i for i, probe in enumerate(results) if probe.load == found)
    before = results[: once + 1]
    refuted = [*before, Probe(found, False), Probe(found, False)]
    assert capacity(SEARCH, refuted).lowest_fail == found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"factor": ""}, "search factor is ''"),
        ({"start": 0}, "search start is 0"),
        ({"start": "500"}, "search start is '500'"),
        ({"growth": 1.0}, "search growth is 1.0: give a number above 1"),
        ({"most": 100}, r"search most is 100: give a number from start \(500\) up"),
        ({"resolution": 0.001}, "search resolution is 0.001: give 0.01 or more"),
        ({"resolution": float("nan")}, "search resolution is nan"),
    ],
)
def test_a_search_that_cannot_be_made_names_the_field(change: dict, words: str):
    """Each field is checked, with the value seen and the remedy."""
    fields = {"factor": "rate_per_s", "start": 500, "growth": 1.5, "most": 20_000, "resolution": 0.1}
    with pytest.raises(SettingError, match=words):
        Search(**{**fields, **change})
