"""The registry's clock: no jump of the wall clock, and no pause of the process, passes for time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.registry.steady_clock import STILL_NS, SteadyClock

EPOCH_NS = 1_795_000_000 * 10**9


@given(steps=st.lists(st.integers(0, 10**15), max_size=20))
def test_it_advances_by_what_was_seen(steps: list[int]) -> None:
    """By the monotonic clock, and by STILL_NS at most between two looks; it begins at the wall clock's time."""
    monotonic_ns = 77
    clock = SteadyClock(lambda: EPOCH_NS, lambda: monotonic_ns)
    expected = EPOCH_NS
    for step in steps:
        monotonic_ns += step
        expected += min(step, STILL_NS)
        assert clock() == expected
