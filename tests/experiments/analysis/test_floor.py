"""The floor against a simulation of the waiting itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis.floor import Waits, floor_quantile, spectrum
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
    frame = spectrum(histogram, Waits(6, 0.5, "aligned", 0.05))
    assert frame["quantile"].iloc[-1] == pytest.approx(0.99)
    assert (frame["observed_s"].diff().dropna() >= 0).all()
    assert (frame["excess_s"] == frame["observed_s"] - frame["floor_s"]).all()
    assert spectrum(EMPTY, Waits(6, 0.5, "free")).empty
