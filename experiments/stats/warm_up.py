"""Whether a run was steady after its warm-up. The report shows it; it invalidates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FEWEST_WINDOWS = 8
SIGNIFICANCE = 0.025
RELEVANT_SHARE = 0.05
"""A finding is improbable by chance (two tests at 2.5 %, so 5 % in total), and above 5 % of the median level."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WarmUp:
    """Whether the measured windows are steady (None: too few), why, and how many of the first ones should have been
    warm-up (None: no warm-up would have helped).
    """

    steady: bool | None
    why: str
    needed_windows: int | None


def warm_up(values: Sequence[float]) -> WarmUp:
    """Return the finding on a figure of the measured windows in run order, such as their trigger to screen time.

    Two tests are made: a trend over the whole run (Mann-Kendall, that is Kendall's tau against time;
    its size by Theil-Sen, the median slope of all pairs) and a first third unlike the rest (Mann-Whitney; its
    size the difference of medians). Both use ranks, so that one slow window is neither. MSER (White, 1997) gives
    the number of windows that were still warm-up: the truncation that minimises the standard error of the rest, at most
    half of the run. Values that are not finite are left out.
    """
    y = np.asarray(values, dtype=np.float64)
    y = y[np.isfinite(y)]
    if len(y) < FEWEST_WINDOWS:
        return WarmUp(None, f"{len(y)} windows are too few for a test ({FEWEST_WINDOWS} are needed).", None)
    drift = _trend(y)
    start = _first_third(y)
    if not drift and not start:
        return WarmUp(True, f"Neither a trend nor a different beginning in {len(y)} windows.", 0)
    needed = mser(y)
    rest = y[needed:]
    if needed and len(rest) >= FEWEST_WINDOWS and not _trend(rest) and not _first_third(rest):
        return WarmUp(False, f"{start or drift} After {needed} more windows it is steady.", needed)
    return WarmUp(False, f"{drift or start} A longer warm-up would not have helped.", None)


def mser(y: Floats) -> int:
    """Return how many first values to cut off so that the standard error of the mean of the rest is least, up to
    half of them.
    """
    errors = [y[cut:].var() / (len(y) - cut) for cut in range(len(y) // 2 + 1)]
    return int(np.argmin(errors))


def _trend(y: Floats) -> str:
    if np.ptp(y) == 0:
        return ""
    order = np.arange(len(y))
    over_run = float(stats.theilslopes(y, order).slope) * (len(y) - 1)
    significant = float(stats.kendalltau(order, y).pvalue) < SIGNIFICANCE
    share = over_run / _level(y)
    if significant and abs(share) > RELEVANT_SHARE:
        return f"It {'rises' if share > 0 else 'falls'} by {abs(share):.0%} of its level over the {len(y)} windows."
    return ""


def _first_third(y: Floats) -> str:
    first, rest = y[: len(y) // 3], y[len(y) // 3 :]
    if np.ptp(y) == 0 or len(first) < 2:
        return ""
    significant = float(stats.mannwhitneyu(first, rest).pvalue) < SIGNIFICANCE
    share = float(np.median(first) - np.median(rest)) / _level(rest)
    if significant and abs(share) > RELEVANT_SHARE:
        return (
            f"The first {len(first)} windows are {abs(share):.0%} "
            f"{'above' if share > 0 else 'below'} the {len(rest)} after them."
        )
    return ""


def _level(y: Floats) -> float:
    return max(abs(float(np.median(y))), 1e-9)
