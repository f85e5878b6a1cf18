"""Change points in a figure of a run's windows: whether the measurement was steady, and whether a warm-up has ended.

The windows are cut where the ranks of their values change: the cut into segments that minimises Lung-Yut-Fong,
Levy-Leduc and Cappe's rank cost (2015) plus a penalty per change, by PELT (`ruptures`). One segment against two is the
Kruskal-Wallis statistic of the best cut. Ranks make the rate of false alarms independent of the distribution: a single
slow window is no change. It depends on the correlation of neighbouring windows only, and the penalties are quantiles of
simulated steady runs in which that is CORRELATION (experiments.bench.steady). A trend is found as a change of level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import ruptures  # type: ignore[import-untyped]
from numpy.typing import NDArray

SHORTEST = 3
"""A change lasts at least this many windows."""
FEWEST_WINDOWS = 10
"""With fewer measured windows no change could be told from chance."""
FEWEST_WARM_UP = 6
RECENT = 8
"""The end of a warm-up is looked for in its last windows: from FEWEST_WARM_UP to RECENT."""
RELEVANT_S = 0.03
RELEVANT_SHARE = 0.1
"""A change that moves the median by less than both, 30 ms and 10 % of the level, makes no run unsteady."""
CORRELATION = 0.3
"""Of neighbouring windows, in the simulation behind the penalties."""

# windows: penalty. From 16 windows on 0.3 % of steady runs have a change: with two figures each, hardly one run of a
# hundred is UNSTEADY for nothing. Fewer windows cannot tell so well: with ten, the clearest cut that there can be
# comes by chance in 1.5 % of steady runs.
_RARELY_AT = ((10, 7.5), (12, 8.9), (14, 10.3), (16, 11.6), (20, 13.4), (25, 15.2), (30, 16.0), (40, 17.2), (100, 20.8))
_RARELY = dict(_RARELY_AT)
# Of a warm-up 10 %: a false alarm costs one more window, a change that is missed costs the run.
_SOMETIMES = {6: 4.6, 7: 5.2, 8: 5.7}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """Windows `first` to `last` (from 1, both included) between two changes, and the median of their values, s."""

    first: int
    last: int
    median_s: float


@dataclass(frozen=True)
class Steadiness:
    """Whether a figure of the windows is steady (None: too few windows for a test), and why in a sentence.

    `segments`: what the changes leave, one if there is none. `shift_s`: the largest difference of two of their medians.
    """

    steady: bool | None
    why: str
    segments: tuple[Segment, ...]

    @property
    def shift_s(self) -> float:
        """The largest difference between the medians of two segments, s."""
        medians = [segment.median_s for segment in self.segments]
        return max(medians) - min(medians) if medians else 0.0


def steadiness(name: str, values_s: Sequence[float]) -> Steadiness:
    """Return the finding on the figure `name` of the measured windows, in run order, s.

    Values that are not finite, of windows that never arrived, are left out.
    """
    y, within = _finite(values_s), f"{name[:1].lower()}{name[1:]}"
    if len(y) < FEWEST_WINDOWS:
        why = f"{len(y)} windows are too few to say whether {within} was steady ({FEWEST_WINDOWS} are needed)."
        return Steadiness(None, why, _segments(y, []))
    found = Steadiness(True, f"No change of {within} in {len(y)} windows.", _segments(y, _changes(y, _RARELY)))
    if len(found.segments) == 1:
        return found
    parts = ", ".join(f"{one.median_s * 1000:.0f} ms in {one.first} to {one.last}" for one in found.segments)
    if _matters(y, found.shift_s):
        return Steadiness(False, f"{name} changed during the measurement: by window, {parts}.", found.segments)
    why = f"{name} changed by {found.shift_s * 1000:.0f} ms, too little to matter (by window, {parts})."
    return Steadiness(True, why, found.segments)


def settled(values_s: Sequence[float]) -> bool:
    """Return whether a warm-up has ended with its last windows, by their values in order, s.

    It has if the last RECENT values, or as many as there are, FEWEST_WARM_UP at least, hold no change that matters.
    """
    y = _finite(values_s)[-RECENT:]
    if len(y) < FEWEST_WARM_UP:
        return False
    medians = [segment.median_s for segment in _segments(y, _changes(y, _SOMETIMES))]
    return not _matters(y, max(medians) - min(medians))


def _changes(y: Floats, penalties: dict[int, float]) -> list[int]:
    """Return the positions, from 0, at which a new segment begins."""
    if np.ptp(y) == 0:
        return []
    penalty = float(np.interp(len(y), list(penalties), list(penalties.values())))
    found = ruptures.Pelt(model="rank", min_size=SHORTEST, jump=1).fit(y).predict(pen=penalty)
    return [int(end) for end in found[:-1]]


def _segments(y: Floats, changes: Sequence[int]) -> tuple[Segment, ...]:
    ends = [0, *changes, len(y)]
    return tuple(
        Segment(since + 1, upto, float(np.median(y[since:upto]))) for since, upto in pairwise(ends) if upto > since
    )


def _matters(y: Floats, shift_s: float) -> bool:
    return shift_s >= max(RELEVANT_S, RELEVANT_SHARE * abs(float(np.median(y))))


def _finite(values_s: Sequence[float]) -> Floats:
    y = np.asarray(values_s, dtype=np.float64)
    return np.asarray(y[np.isfinite(y)])
