"""Latencies as HdrHistograms: a few kilobytes each, which merge over runs, blocks and campaigns.

Values are in microseconds, tracked from 1 ms to an hour with four significant figures: a value up to 16 s is
exact to 0.5 ms, a larger one to 0.01 %. An HdrHistogram cannot hold reactions that never arrived; their number is kept
beside it.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Iterable

import numpy as np
from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram

from experiments.analysis.latency import Histogram
from pipeline.errors import SettingError

LOWEST_US, HIGHEST_US, FIGURES = 1_000, 3_600_000_000, 4


def empty() -> HdrHistogram:
    """Return an HdrHistogram of the range and resolution that all of them have."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, FIGURES)


def encode(histogram: Histogram) -> str:
    """Return the delivered latencies of `histogram` as the base64 text of an HdrHistogram (V2, compressed).

    A bin of 1 ms is recorded at its upper edge, the value that Histogram.quantile_s reports. A negative
    latency is recorded as 0 and one above an hour as an hour; the numbers of
    negative and of missing ones are in the run's summary.
    """
    result = empty()
    for number in np.flatnonzero(histogram.counts):
        edge_us = (histogram.first_ms + int(number) + 1) * 1000
        result.record_value(min(max(edge_us, 0), HIGHEST_US), int(histogram.counts[number]))
    return str(result.encode().decode("ascii"))


def merged(texts: Iterable[str]) -> HdrHistogram:
    """Return the HdrHistogram of all latencies in `texts`, each made by `encode` or by any HdrHistogram V2.

    Raises SettingError naming the position of a text that is cut off or malformed.
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


def decoded(latencies: HdrHistogram, *, undelivered: int, negative: int, reactions: int) -> Histogram:
    """Return the histogram that `encode` was given, or the sum of several: up to 16 s it is the same to the bin.

    The arguments that an HdrHistogram cannot hold come from the runs' summaries.
    """
    # The library's iterator looks at each of 160,000 counts, in Python. The highest value equivalent to the recorded
    # one is rounded down, and is then what was recorded: a bin's upper edge, hence the bin before.
    every = np.ctypeslib.as_array(latencies.counts)
    (recorded,) = np.nonzero(every)
    highest = [latencies.get_highest_equivalent_value(latencies.get_value_from_index(int(at))) for at in recorded]
    bins, numbers = np.array(highest, dtype=np.int64) // 1000 - 1, every[recorded].astype(np.int64)
    first = int(bins.min()) if len(bins) else 0
    counts = np.zeros(int(bins.max()) - first + 1 if len(bins) else 0, dtype=np.int64)
    np.add.at(counts, bins - first, numbers)
    return Histogram(first, counts, undelivered, negative, reactions)


def _refusal(position: int, text: str, error: Exception) -> str:
    seen = f"{text[:24]}…" if len(text) > 24 else text
    return (
        f"latency histogram {position} ({seen!r}) is not an HdrHistogram ({error or type(error).__name__}): "
        "write the run's summary/latency.hdr again"
    )
