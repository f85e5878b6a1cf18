"""The sizes of the delivery benchmark's measurements, and the constants that they share."""

from __future__ import annotations

from dataclasses import dataclass

# A window that a client lacks this long after it was sent counts as lost.
SETTLE_S = 15.0
# Windows that are not timed, before those that are: code and caches warm up.
WARM_UP = 10


@dataclass(frozen=True)
class Sizes:
    """The size of each measurement; the project's promises are about the defaults."""

    clients: int = 5_000
    rate_per_s: float = 500.0
    windows: int = 50
    pace_s: float = 1.0
    levels: tuple[int, ...] = (100, 500, 1_000, 2_500, 5_000)
    level_s: float = 8.0
    steady: int = 1_000
    others: int = 200
    churn_per_s: float = 100.0
    # Two minutes of coming and going in all, each round between two quiet phases of the same length.
    rounds: int = 6
    round_s: float = 20.0
    # At least a thousand at the one that is killed: the two differ by some twenty.
    killed: int = 1_100
