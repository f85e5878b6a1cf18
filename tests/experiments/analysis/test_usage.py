"""The cores each stage used, from samples whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.analysis import usage
from experiments.units import NS_PER_S


def test_shares_are_cores_between_two_moments() -> None:
    """CPU seconds over seconds, from the samples inside; what is no stage's is others'."""
    rows = [
        (second * NS_PER_S, stage, cores * second + 7.0, 1)
        for second in range(0, 20, 2)
        for stage, cores in (("spark", 0.5), ("ingest", 0.25), ("machine", 1.0))
    ]
    frame = pd.DataFrame(rows, columns=["t_ns", "stage", "cpu_s", "rss_bytes"])
    shares = usage.shares(frame, 4 * NS_PER_S, 15 * NS_PER_S)
    assert shares == pytest.approx({"spark": 0.5, "ingest": 0.25, "machine": 1.0, "others": 0.25})


@pytest.mark.parametrize(("seen", "interrupts", "others"), [(0.4, 0.1, 0.4), (0.1, 0.1, 0.15), (0.0, 0.3, 0.0)])
def test_work_of_others_is_the_larger_reading(seen: float, interrupts: float, others: float) -> None:
    """What was seen of other processes, or what is left of the machine; interrupts are nobody's."""
    cores = {"spark": 0.75, "machine": 1.0, "others": seen, "interrupts": interrupts}
    rows = [(second * NS_PER_S, stage, one * second, 1) for second in (0, 10) for stage, one in cores.items()]
    frame = pd.DataFrame(rows, columns=["t_ns", "stage", "cpu_s", "rss_bytes"])
    assert usage.shares(frame, 0, 10 * NS_PER_S)["others"] == pytest.approx(others)


def test_restarted_stage_has_share_zero() -> None:
    """Its counter starts over; the share is 0."""
    frame = pd.DataFrame(
        [(0, "spark", 9.0, 1), (NS_PER_S, "spark", 1.0, 1)], columns=["t_ns", "stage", "cpu_s", "rss_bytes"]
    )
    assert usage.shares(frame, 0, NS_PER_S) == {"spark": 0.0}
