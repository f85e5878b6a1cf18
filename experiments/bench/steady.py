"""The benchmark of the verdict UNSTEADY: how often a steady run gets it, and how often a change is found.

Simulated windows have the scatter of real runs. Its size is that which the reference campaigns of 2026-11-24 had about
their trends: 40 ms at 100 users, and 0.3 s near the capacity, as the intervals of their slopes say. A quiet chain of
today scatters by 6 ms. The scatter has heavy tails (Student's t with 3 degrees of freedom), and neighbouring windows
are correlated by 0.3 as those of 36 windows of a run were; the variants change that. A run has two figures, the time
from trigger to screens and the micro-batch time, which differ by a tenth of the scatter.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.progress import Progress
from experiments.stats.steadiness import CORRELATION, RELEVANT_S, RELEVANT_SHARE, steadiness

RUNS = 400
RUN_S = 0.01  # for the estimate of the time left
TRIGGER_S = 6.0
WINDOWS, FEW = 20, 11


@dataclass(frozen=True)
class Case:
    """Simulated runs of `windows` windows: their level and scatter, s, the correlation of neighbours, and what changes:
    a trend, s per minute, or a step, s, in the middle.
    """

    name: str
    level_s: float
    scatter_s: float
    windows: int = WINDOWS
    correlation: float = CORRELATION
    trend_s_per_min: float = 0.0
    step_s: float = 0.0

    @property
    def steady(self) -> bool:
        """Whether nothing changes."""
        return self.trend_s_per_min == 0 and self.step_s == 0


CASES = (
    Case("steady, a quiet chain", 0.2, 0.006),
    Case("steady, 100 users of the reference", 0.26, 0.04),
    Case("steady, near the capacity", 1.1, 0.3),
    Case("steady, near the capacity", 1.1, 0.3, windows=FEW),
    Case("steady, windows not correlated", 1.1, 0.3, correlation=0.0),
    Case("steady, windows correlated by 0.5", 1.1, 0.3, correlation=0.5),
    Case("falls by 0.8 s per minute", 1.1, 0.3, trend_s_per_min=-0.8),
    Case("falls by 0.8 s per minute", 1.1, 0.3, windows=FEW, trend_s_per_min=-0.8),
    Case("falls by 1.5 s per minute", 1.1, 0.3, trend_s_per_min=-1.5),
    Case("falls by 1.5 s per minute", 1.1, 0.3, windows=FEW, trend_s_per_min=-1.5),
    Case("a step of 20 ms, a quiet chain", 0.2, 0.006, step_s=0.02),
    Case("a step of 45 ms, a quiet chain", 0.2, 0.006, step_s=0.045),
    Case("a step of 100 ms, 100 users of the reference", 0.26, 0.04, step_s=0.1),
    Case("a step of 150 ms, 100 users of the reference", 0.26, 0.04, step_s=0.15),
    Case("a step of 1 s, near the capacity", 1.1, 0.3, step_s=1.0),
)


def steady() -> dict[str, Any]:
    """Simulate runs of each of CASES; return how many of them are UNSTEADY."""
    with Progress(RUN_S * RUNS * len(CASES)) as progress:
        cases = []
        for number, case in enumerate(CASES):
            progress.begin(f"{RUNS} runs: {case.name}, {case.windows} windows", RUN_S * RUNS)
            cases.append({**asdict(case), "unsteady_share": unsteady_share(case, RUNS, number)})
    usual = [case.steady and case.correlation == CORRELATION for case in CASES]
    return {
        "runs": RUNS,
        "false_alarm_share": max(case["unsteady_share"] for case, of in zip(cases, usual, strict=True) if of),
        "relevant_s": RELEVANT_S,
        "relevant_share": RELEVANT_SHARE,
        "cases": cases,
    }


def unsteady_share(case: Case, runs: int, seed: int = 1) -> float:
    """Return the share of `runs` simulated runs of a case that are UNSTEADY."""
    rng = np.random.default_rng([seed, 6])
    return round(sum(_unsteady(case, rng) for _ in range(runs)) / runs, 4)


def _unsteady(case: Case, rng: np.random.Generator) -> bool:
    own = case.level_s + case.scatter_s * _scatter(case, rng)
    at = np.arange(case.windows)
    own += case.trend_s_per_min * at * TRIGGER_S / 60 + case.step_s * (at >= case.windows // 2)
    beside = own + 0.1 * case.scatter_s * rng.standard_normal(case.windows)
    return any(steadiness("", values.tolist()).steady is False for values in (own, beside))


def _scatter(case: Case, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a stationary series of standard deviation 1: first-order autoregression of heavy-tailed values."""
    before = 20
    values = rng.standard_t(3, before + case.windows) / math.sqrt(3)
    for place in range(1, len(values)):
        values[place] += case.correlation * values[place - 1]
    return np.asarray(values[before:] * math.sqrt(1 - case.correlation**2), dtype=np.float64)
