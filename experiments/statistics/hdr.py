"""Latencies as HdrHistograms, which keep in a few kilobytes and merge: over runs, blocks and campaigns.

Values are in microseconds, tracked from 1 ms to an hour with four significant figures: a value up to 16 s is
told from its neighbours by 0.5 ms, a later one by 0.01 %. What never arrived has no place in an HdrHistogram; its
number travels beside it, and quantiles are +inf where they fall into it.
"""

from __future__ import annotations

import binascii
import math
import zlib
from collections.abc import Iterable

import numpy as np
from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram

from experiments.latency import Histogram
from pipeline.errors import SettingError

LOWEST_US, HIGHEST_US, FIGURES = 1_000, 3_600_000_000, 4


def empty() -> HdrHistogram:
    """Return an HdrHistogram of the range and resolution that all of ours have."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, FIGURES)


def encode(histogram: Histogram) -> str:
    """Return the delivered latencies of `histogram` as the base64 text of an HdrHistogram (V2, compressed).

    A bin of 1 ms is recorded at its upper edge, the value that Histogram.quantile_s reports. A negative
    latency is recorded as 0 and one above an hour as an hour; how many were negative, and how many never came,
    is in the run's summary.
    """
    result = empty()
    for number in np.flatnonzero(histogram.counts):
        edge_us = (histogram.first_ms + int(number) + 1) * 1000
        result.record_value(min(max(edge_us, 0), HIGHEST_US), int(histogram.counts[number]))
    return str(result.encode().decode("ascii"))


def merged(texts: Iterable[str]) -> HdrHistogram:
    """Return the HdrHistogram of all latencies in `texts`, each made by `encode` or by any HdrHistogram V2.

    Raises SettingError naming the position of a text that is cut off or none.
    """
    result = empty()
    for position, text in enumerate(texts):
        try:
            result.decode_and_add(text.strip())
        except (TypeError, ValueError, IndexError, binascii.Error, zlib.error) as error:
            raise SettingError(_refusal(position, text, error)) from error
        except (HdrCookieException, HdrLengthException) as error:
            raise SettingError(_refusal(position, text, error)) from error
    return result


def quantile_s(latencies: HdrHistogram, undelivered: int, q: float) -> float:
    """Return the value of rank ceil(q n) in seconds, n including the `undelivered`; inf: among those, NaN: n = 0.

    Up to 16 s this is to the millisecond what Histogram.quantile_s says of the histograms merged.
    """
    delivered = int(latencies.get_total_count())
    n = delivered + undelivered
    if n == 0:
        return math.nan
    rank = min(max(math.ceil(q * n - 1e-9), 1), n)
    if rank > delivered:
        return math.inf
    # The library reports the highest value that it cannot tell from the recorded one: rounding down undoes that.
    return int(latencies.get_value_at_percentile(100 * rank / delivered)) // 1000 / 1000


def _refusal(position: int, text: str, error: Exception) -> str:
    seen = f"{text[:24]}…" if len(text) > 24 else text
    return (
        f"latency histogram {position} ({seen!r}) is no HdrHistogram ({error or type(error).__name__}): "
        "write the run's summary/latency.hdr anew"
    )
