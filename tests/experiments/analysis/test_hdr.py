"""HdrHistograms: what a run's own histogram says survives encoding, merging and the undelivered."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.analysis import hdr
from experiments.analysis.latency import EMPTY, Histogram
from pipeline.errors import SettingError

QUANTILES = (0.001, 0.07, 0.5, 0.9, 0.99, 0.999, 1.0)


def histogram(latencies_ms: list[int], undelivered: int = 0) -> Histogram:
    """Return the run's histogram of whole milliseconds."""
    first = min(latencies_ms)
    counts = np.bincount(np.asarray(latencies_ms) - first)
    return Histogram(first, counts.astype(np.int64), undelivered, 0, len(latencies_ms))


def decoded(latencies, undelivered: int = 0) -> Histogram:
    """Return what is read back of HdrHistograms."""
    return hdr.decoded(latencies, undelivered=undelivered, negative=0, reactions=latencies.get_total_count())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 16_000), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(0, 20),
)
def test_quantiles_survive_encoding_and_merging(parts: list[list[int]], undelivered: int):
    """Up to 16 s the merged HdrHistogram has the very quantiles of the merged histogram, undelivered ones too."""
    whole = histogram([latency for part in parts for latency in part], undelivered)
    latencies = hdr.merged(hdr.encode(histogram(part)) for part in parts)
    assert latencies.get_total_count() == whole.samples - undelivered
    found = decoded(latencies, undelivered)
    for q in QUANTILES:
        assert found.quantile_s(q) == whole.quantile_s(q)


def test_late_values_keep_four_figures():
    """Beyond 16 s a latency is off by a ten-thousandth at most, and above an hour it is an hour."""
    for latency_ms in (17_001, 123_456, 2_000_000):
        found = decoded(hdr.merged([hdr.encode(histogram([latency_ms]))])).quantile_s(1.0)
        assert found == pytest.approx(latency_ms / 1000, rel=2e-4)
    longest = decoded(hdr.merged([hdr.encode(histogram([5_000_000]))])).quantile_s(1.0)
    assert longest == pytest.approx(3600, rel=2e-4)


def test_negative_latencies_are_zero_and_nothing_is_nan():
    """A negative latency is kept as 0, never dropped; without any value there is no quantile."""
    latencies = hdr.merged([hdr.encode(histogram([-40, 3]))])
    assert latencies.get_total_count() == 2
    assert decoded(latencies).quantile_s(0.5) == 0
    nothing = hdr.merged([hdr.encode(EMPTY)])
    assert math.isnan(decoded(nothing).quantile_s(0.5))
    assert decoded(nothing, 3).quantile_s(0.5) == math.inf


@pytest.mark.parametrize("cut", [0, 10, 40])
def test_truncated_text_is_named(cut: int):
    """A file cut off in the middle of a write is an error that names its position."""
    whole = hdr.encode(histogram([5, 900, 4000]))
    with pytest.raises(SettingError, match=r"latency histogram 1 .*latency\.hdr again"):
        hdr.merged([whole, whole[:cut]])
