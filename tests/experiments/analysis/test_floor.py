"""The floor against a simulation of the waiting itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis.floor import Waits, earliest_triggers, floor_quantile, spectrum
from experiments.analysis.latency import EMPTY, Histogram
from pipeline.errors import SettingError

TIMES = {
    "trigger_s": st.floats(0.1, 20),
    "flush_s": st.floats(0, 20),
    "phase": st.sampled_from(["aligned", "free"]),
}


@given(q=st.floats(0, 1), r=st.floats(0, 1), lead_s=st.floats(0, 1), **TIMES)
def test_floor_is_monotone_and_bounded(q, r, trigger_s, flush_s, phase, lead_s):
    """A higher quantile is never lower, and none leaves the range of the waits."""
    low, high = (floor_quantile(x, trigger_s, flush_s, phase, lead_s) for x in sorted((q, r)))
    assert low <= high + 1e-9
    most = trigger_s + (lead_s if phase == "aligned" else flush_s)
    assert low >= -1e-9
    assert high <= most + 1e-9


def simulated_s(phase: str, trigger_s: float, flush_s: float, lead_s: float) -> np.ndarray:
    """Wait for the flush, then for the trigger, reaction by reaction."""
    rng = np.random.default_rng(7)
    waits = []
    for _ in range(400 if phase == "free" else 1):
        count = 1_000 if phase == "free" else 400_000
        taps = rng.uniform(0, 50 * trigger_s, count)
        # Aligned: a flush lands exactly `lead` before a trigger. Free: anywhere, but fixed within a run.
        shift = -lead_s if phase == "aligned" else rng.uniform(0, flush_s)
        flushed = np.ceil((taps - shift) / flush_s) * flush_s + shift
        triggered = np.ceil(flushed / trigger_s) * trigger_s
        waits.append(triggered - taps)
    return np.concatenate(waits)


@pytest.mark.parametrize(
    ("phase", "trigger_s", "flush_s", "lead_s"),
    [("aligned", 6, 0.5, 0.05), ("aligned", 2, 0.5, 0), ("free", 6, 0.5, 0), ("free", 2, 1, 0)],
)
def test_floor_is_what_waiting_for_flush_and_trigger_takes(phase, trigger_s, flush_s, lead_s):
    """The quantile function agrees with a simulation of the process it describes."""
    seen = simulated_s(phase, trigger_s, flush_s, lead_s)
    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        expected = floor_quantile(q, trigger_s, flush_s, phase, lead_s)
        assert np.quantile(seen, q) == pytest.approx(expected, abs=0.015 * trigger_s)


def test_free_flushing_costs_half_a_flush_interval_more_on_average():
    """The protocol's L/2 for dense traffic."""
    q = (np.arange(2000) + 0.5) / 2000
    mean = np.mean([floor_quantile(float(x), 6, 0.5, "free") for x in q])
    assert mean == pytest.approx(3.25, abs=0.002)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1.2, 6, 0.5, "free"), "q is 1.2"),
        ((0.5, 0, 0.5, "free"), "trigger_s"),
        ((0.5, 6, -1, "free"), "flush_s"),
        ((0.5, 6, 0.5, "sideways"), "phase is 'sideways'"),
    ],
)
def test_impossible_floors_are_refused_by_name(arguments, named):
    """Each argument outside its range is named."""
    with pytest.raises(SettingError, match=named):
        floor_quantile(*arguments)


def test_spectrum_ends_where_ten_reactions_are_left():
    """The plot goes as far out as the reactions carry it, however many clients multiply the pairs."""
    histogram = Histogram(0, np.full(1000, 100), 0, 0, 1_000)
    waits = Waits(6, 0.5, "aligned", 0.05)
    frame = spectrum(histogram, waits.quantile_s, lambda q: q / 10)
    assert frame["quantile"].iloc[-1] == pytest.approx(0.99)
    assert (frame["observed_s"].diff().dropna() >= 0).all()
    assert frame["excess_s"].tolist() == pytest.approx((frame["quantile"] / 10).tolist())
    assert spectrum(EMPTY, waits.quantile_s, waits.quantile_s).empty


@given(
    sends=st.lists(st.integers(0, 60 * 10**9), min_size=1, max_size=30),
    trigger_ms=st.integers(100, 7000),
    flush_ms=st.integers(0, 2000),
    lead_ms=st.integers(0, 2000),
)
def test_earliest_trigger_is_found_by_walking_along_the_grids(sends, trigger_ms, flush_ms, lead_ms):
    """Aligned: the first flush at or after the send, then the first trigger at or after that flush."""
    lead_ms = min(lead_ms, flush_ms)
    waits = Waits(trigger_ms / 1000, flush_ms / 1000, "aligned", lead_ms / 1000)
    found = earliest_triggers(np.array(sends, dtype=np.int64), waits, np.zeros(0, dtype=np.int64))
    for send, trigger in zip(sends, found.tolist(), strict=True):
        flush = send
        if flush_ms:
            flush = send // (flush_ms * 10**6) * flush_ms * 10**6 - lead_ms * 10**6
            while flush < send:
                flush += flush_ms * 10**6
        assert trigger % (trigger_ms * 10**6) == 0
        assert flush <= trigger < flush + trigger_ms * 10**6


def test_free_flush_counts_when_it_happened_but_at_most_one_interval_later():
    """Without a grid the flushes that the topic shows decide; a flush that came too late is no excuse."""
    waits = Waits(6, 0.5, "free")
    second = 10**9
    sends = np.array([5_700, 5_900, 5_100], dtype=np.int64) * 10**6
    flushed = np.array([6_100, 5_800, 5_300 + 800], dtype=np.int64) * 10**6
    assert earliest_triggers(sends, waits, flushed).tolist() == [6 * second, 12 * second, 6 * second]
    assert earliest_triggers(sends, waits, flushed[:0]).tolist() == [12 * second, 12 * second, 6 * second]
