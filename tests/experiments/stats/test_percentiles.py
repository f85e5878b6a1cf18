"""Which percentiles may have an interval: ten windows have to lie beyond them."""

from __future__ import annotations

import pytest

from experiments.stats.percentiles import inferable, percentile_of


@pytest.mark.parametrize(
    ("key", "share"),
    [
        ("e2e_p50_s", 0.5),
        ("e2e_excess_p90_s", 0.9),
        ("e2e_excess_p99.9_s", 0.999),
        ("batch_p95_s", 0.95),
        ("headroom", 0.95),
        ("answer_p99_ms", None),
        ("excess_worst_window_s", None),
        ("representation_error", None),
        ("e2e_p50_s_of_something", 0.5),
    ],
)
def test_a_figures_name_says_its_percentile(key: str, share: float | None) -> None:
    """Over windows; ingest's answers are counted by request."""
    assert percentile_of(key) == (pytest.approx(share) if share is not None else None)


@pytest.mark.parametrize(("key", "fewest"), [("e2e_p50_s", 20), ("e2e_p90_s", 100), ("headroom", 200), ("x_p99_s", 0)])
def test_it_needs_ten_windows_beyond(key: str, fewest: int) -> None:
    """Just enough is enough; a figure that is no percentile needs none."""
    assert inferable(key, fewest)
    assert inferable(key, fewest - 1) is (fewest == 0)


def test_p99_needs_a_thousand_windows() -> None:
    """Six runs of twenty windows give none."""
    assert not inferable("e2e_excess_p99_s", 6 * 20)
    assert not inferable("e2e_excess_p99_s", 999)
    assert inferable("e2e_excess_p99_s", 1_000)
