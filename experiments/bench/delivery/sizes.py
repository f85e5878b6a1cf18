"""How large each measurement of the delivery benchmark is, and what all of them share."""

from __future__ import annotations

from dataclasses import dataclass

# How long after its window was sent the last client may have it before it counts as lost.
SETTLE_S = 15.0
# Windows that nobody times, before those that are: code and caches warm up.
WARM_UP = 10


@dataclass(frozen=True)
class Sizes:
    """How large each measurement is; the defaults are what the project promises to hold."""

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
    # At least a thousand at the one that dies: the two differ by some twenty.
    killed: int = 1_100
