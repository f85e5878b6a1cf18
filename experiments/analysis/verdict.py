"""The verdict: whether the figures are VALID or INVALID and why, and whether the objectives were met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis.latency import rank_quantile
from experiments.units import NS_PER_S
from pipeline.errors import SettingError

SEND_DELAY_P99_MS = 50.0
SEND_STALL_MS = 500.0
SENT_SHARE = 0.99
CLOCK_STEP_MS = 5.0
# A closed loop's users are one process. Above this share of a core its figures measure the process, not the chain.
CROWD_CPU_SHARE = 0.9


def reasons_against(
    plan: pd.DataFrame,
    sent: pd.DataFrame,
    clock_samples: Sequence[tuple[int, int]],
    *,
    other_run: bool,
) -> list[str]:
    """Return why the run is INVALID, empty if it is VALID. Each reason names the value seen and the limit.

    `clock_samples` are (time_ns, monotonic_ns) pairs read as one, over the whole run, in order. A step is a
    change of their difference by more than 5 ms from one sample to the next: NTP's slewing (at most 0.5 ms a
    second) stays below that if samples are taken every few seconds, and a step does not.
    """
    reasons = []
    if other_run:
        reasons.append("Another run was active on this machine at the same time: run one at a time.")
    rows = plan.merge(sent, on="seq", how="left")
    done = rows["t_sent_ns"].notna()
    share = float(done.mean()) if len(rows) else 0.0
    if share < SENT_SHARE:
        reasons.append(
            f"Only {share:.1%} of the plan was sent ({int(done.sum()):,} of {len(rows):,}; at least "
            f"{SENT_SHARE:.0%} is needed): lower rate_per_s or give the load generator more CPU."
        )
    timed = rows[done & (rows["phase"] == "measured")]
    delay_ms = (timed["t_sent_ns"].astype("int64") - timed["t_intended_ns"]).to_numpy(dtype=np.int64) / 1e6
    p99_ms = rank_quantile(delay_ms, 0.99)
    if not p99_ms <= SEND_DELAY_P99_MS:
        seen = "no measured reaction was sent" if math.isnan(p99_ms) else f"it was {p99_ms:.1f} ms"
        reasons.append(
            f"The generator fell behind its plan: p99 of (sent - intended) may be "
            f"{SEND_DELAY_P99_MS:.0f} ms, {seen}. Lower rate_per_s or give it more CPU."
        )
    if len(delay_ms) and delay_ms.max() > SEND_STALL_MS:
        worst = timed.iloc[int(delay_ms.argmax())]
        into_s = (worst["t_intended_ns"] - rows["t_intended_ns"].min()) / NS_PER_S
        reasons.append(
            f"The generator stalled: seq {worst['seq']}, due {into_s:.1f} s into the load, went out "
            f"{delay_ms.max():.0f} ms late (at most {SEND_STALL_MS:.0f} ms). "
            "Find out what else used the machine."
        )
    return reasons + _clock(clock_samples)


def reasons_against_crowd(cpu_share: float) -> list[str]:
    """Return why a closed loop is INVALID, empty if it is VALID; `cpu_share` is its users' CPU time, of one core.

    Its plan is what was sent, so no delay can show that the users were slowed down. They are one process: if it has no
    core left, its limit would be taken for the chain's. NaN (not sampled) is no reason.
    """
    if not cpu_share >= CROWD_CPU_SHARE:
        return []
    return [
        f"The users were busy: their one process took {cpu_share:.2f} of a core (less than "
        f"{CROWD_CPU_SHARE} is needed). Lower users, or raise think_s."
    ]


def _clock(samples: Sequence[tuple[int, int]]) -> list[str]:
    if len(samples) < 2:
        return [f"The clock was not watched ({len(samples)} samples): a step of it would not be noticed. Run again."]
    pairs = np.asarray(samples, dtype=np.int64)
    steps_ms = np.diff(pairs[:, 0] - pairs[:, 1]) / 1e6
    worst = int(np.abs(steps_ms).argmax())
    if abs(steps_ms[worst]) <= CLOCK_STEP_MS:
        return []
    into_s = (pairs[worst + 1, 1] - pairs[0, 1]) / NS_PER_S
    return [
        f"The clock stepped by {steps_ms[worst]:+.1f} ms, {into_s:.1f} s into the run (at most "
        f"{CLOCK_STEP_MS:.0f} ms): keep time synchronisation from stepping it, and run again."
    ]


@dataclass(frozen=True)
class Slo:
    """A service level objective: the summary figure under `key` may be at most (or least) `limit`."""

    name: str
    key: str
    limit: float
    unit: str
    at_least: bool = False

    def judge(self, summary: Mapping[str, Any]) -> SloResult:
        """Return the result; a figure that is missing or NaN was not measured, and fails."""
        raw = summary.get(self.key)
        figure = None if raw is None or math.isnan(raw) else float(raw)
        met = figure is not None and (figure >= self.limit if self.at_least else figure <= self.limit)
        return SloResult(self.name, self.key, figure, self.limit, self.unit, self.at_least, met)


@dataclass(frozen=True)
class SloResult:
    """An objective, the figure that was measured (None: not measured), and whether it was met."""

    name: str
    key: str
    figure: float | None
    limit: float
    unit: str
    at_least: bool
    passed: bool


SLOS = {
    slo.key: slo
    for slo in (
        Slo("Median latency above the floor", "e2e_excess_p50_s", 0.5, "s"),
        Slo("p99 latency above the floor", "e2e_excess_p99_s", 1.2, "s"),
        Slo("Micro-batch time, p95", "batch_p95_s", 0.6, "s"),
        Slo("Micro-batch time over trigger interval, p95", "headroom", 0.8, "share"),
        Slo("Growth of the consumer lag over the load, upper 95 % limit", "lag_slope_upper_share", 0.01, "share"),
        Slo("Reactions accepted of those offered", "accepted_share", 0.99, "share", at_least=True),
        Slo("Reactions lost", "lost", 0, ""),
        Slo("Reactions counted twice", "duplicated", 0, ""),
        Slo("Reactions altered", "altered", 0, ""),
        Slo("Counts that agree with the oracle", "oracle_share", 1.0, "share", at_least=True),
        Slo("Representatives that differ from the policy's", "representatives_wrong", 0, ""),
        Slo("Deliveries missing", "deliveries_missing", 0, ""),
        Slo("Deliveries doubled", "deliveries_duplicate", 0, ""),
        Slo("Deliveries out of order", "deliveries_out_of_order", 0, ""),
        Slo("Deliveries altered", "deliveries_altered", 0, ""),
        Slo("Deliveries late", "deliveries_late", 0, ""),
    )
}
"""Every objective by the summary key of its figure, with the limit that holds if a design sets none."""

INTEGRITY = (
    *("accepted_share", "lost", "duplicated", "altered", "oracle_share", "representatives_wrong"),
    *("deliveries_missing", "deliveries_duplicate", "deliveries_out_of_order", "deliveries_altered"),
)
"""Objectives of every run, named by its design or not: figures of a chain that counts wrongly mean nothing."""


def objectives(limits: Mapping[str, float] | None = None, trigger_s: float = 6.0) -> tuple[Slo, ...]:
    """Return the objectives of a run: those of `limits` (summary key -> limit) and INTEGRITY; without limits, all.

    Raises SettingError for an unknown key.
    """
    for key in limits or ():
        if key not in SLOS:
            raise SettingError(f"slos names {key!r}, which is not an objective: use one of {', '.join(SLOS)}")
    if limits:
        chosen = {key: SLOS[key].limit for key in INTEGRITY} | dict(limits)
        return tuple(replace(slo, limit=chosen[slo.key]) for slo in SLOS.values() if slo.key in chosen)
    # A trigger below 0.75 s leaves less time than the usual limit.
    return tuple(
        replace(slo, limit=min(slo.limit, 0.8 * trigger_s)) if slo.key == "batch_p95_s" else slo
        for slo in SLOS.values()
    )


@dataclass(frozen=True)
class Verdict:
    """VALID or INVALID with the reasons, and each objective's result."""

    valid: bool
    reasons: tuple[str, ...]
    slos: tuple[SloResult, ...]

    @property
    def passed(self) -> bool:
        """Whether the run is valid and met every objective."""
        return self.valid and all(slo.passed for slo in self.slos)

    def to_json(self) -> dict[str, Any]:
        """Return what verdict.json holds; an infinite figure is written as the text "inf"."""
        slos = [asdict(slo) for slo in self.slos]
        for slo in slos:
            if slo["figure"] is not None and math.isinf(slo["figure"]):
                slo["figure"] = "inf"
        return {
            "verdict": "VALID" if self.valid else "INVALID",
            "reasons": list(self.reasons),
            "passed": self.passed,
            "slos": slos,
        }


def judge(reasons: Sequence[str], summary: Mapping[str, Any], slos: Sequence[Slo]) -> Verdict:
    """Return the verdict for the `reasons_against` a run and its `summary` figures."""
    return Verdict(not reasons, tuple(reasons), tuple(slo.judge(summary) for slo in slos))
