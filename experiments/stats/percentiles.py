"""Which percentiles of a campaign may be stated with an interval.

Reactions of one window arrive together, so that the independent unit is the window. A percentile with fewer than
WINDOWS_BEYOND windows beyond it says what a few windows did: then the runs are shown, and nothing is inferred.
"""

from __future__ import annotations

import re

WINDOWS_BEYOND = 10
_OTHERS = {"headroom": 0.95}
_NAMED = re.compile(r"(?:e2e|batch|excess)\w*_p(\d+(?:\.\d+)?)(?:_|$)")


def percentile_of(key: str) -> float | None:
    """Return the percentile over windows that the figure of a summary is, as a share; None if it is another figure.

    The times of ingest's answers are percentiles over requests.
    """
    found = _NAMED.match(key)
    return float(found[1]) / 100 if found else _OTHERS.get(key)


def inferable(key: str, windows: float) -> bool:
    """Return whether a figure may be stated with an interval, of runs that measured so many windows in all."""
    share = percentile_of(key)
    # 1 - 0.9 is a little less than a tenth: a hundred windows are enough for it.
    return share is None or round(windows * (1 - share), 6) >= WINDOWS_BEYOND
