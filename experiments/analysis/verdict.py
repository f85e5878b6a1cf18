"""The verdict: whether the figures are VALID, INVALID or UNSTEADY and why, and whether the objectives were met.

What the analysis computes, the verdict judges: a figure that has to be zero and is not fails an objective by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipeline.errors import SettingError


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
        # A number without a unit counts faults; a sum may be off either way.
        size = abs(figure) if figure is not None and not self.unit else figure
        met = size is not None and (size >= self.limit if self.at_least else size <= self.limit)
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
        Slo("Reactions accepted of those offered", "accepted_share", 0.999, "share", at_least=True),
        Slo("Reactions lost", "lost", 0, ""),
        Slo("Reactions counted twice", "duplicated", 0, ""),
        Slo("Reactions altered", "altered", 0, ""),
        Slo("Reactions counted that are not of this run", "foreign", 0, ""),
        Slo("Reactions counted that no record explains", "unexplained", 0, ""),
        Slo("Windows emitted again with other contents", "conflicting", 0, ""),
        Slo("Gaps and overlaps between windows", "offset_breaks", 0, ""),
        Slo("Counts that agree with the oracle", "oracle_share", 1.0, "share", at_least=True),
        Slo("Representatives that differ from the policy's", "representatives_wrong", 0, ""),
        Slo("Invalid requests answered otherwise than they must be", "answers_unexpected", 0, ""),
        Slo("Deliveries missing", "deliveries_missing", 0, ""),
        Slo("Deliveries doubled", "deliveries_duplicate", 0, ""),
        Slo("Deliveries out of order", "deliveries_out_of_order", 0, ""),
        Slo("Deliveries altered", "deliveries_altered", 0, ""),
        Slo("Deliveries of a window that was never emitted", "deliveries_unknown", 0, ""),
        Slo("Deliveries late", "deliveries_late", 0, ""),
    )
}
"""Every objective by the summary key of its figure, with the limit that holds if a design sets none."""

INTEGRITY = (
    *("accepted_share", "lost", "duplicated", "altered", "foreign", "unexplained", "conflicting", "offset_breaks"),
    *("oracle_share", "representatives_wrong", "answers_unexpected"),
    *("deliveries_missing", "deliveries_duplicate", "deliveries_out_of_order", "deliveries_altered"),
    *("deliveries_unknown", "deliveries_late"),
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
    """VALID, INVALID or UNSTEADY with the reasons, and each objective's result.

    An UNSTEADY run is one that could be believed, but for a change during its measurement.
    """

    word: Literal["VALID", "INVALID", "UNSTEADY"]
    reasons: tuple[str, ...]
    slos: tuple[SloResult, ...]

    @property
    def valid(self) -> bool:
        """Whether the figures may be quoted, and enter a summary."""
        return self.word == "VALID"

    @property
    def unsteady(self) -> bool:
        """Whether the run is UNSTEADY."""
        return self.word == "UNSTEADY"

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
            "verdict": self.word,
            "reasons": list(self.reasons),
            "passed": self.passed,
            "slos": slos,
        }


def judge(
    reasons: Sequence[str], summary: Mapping[str, Any], slos: Sequence[Slo], *, unsteady: Sequence[str] = ()
) -> Verdict:
    """Return the verdict for the `reasons` against a run, the changes that made it `unsteady`, and its `summary`."""
    word: Literal["VALID", "INVALID", "UNSTEADY"] = "INVALID" if reasons else "UNSTEADY" if unsteady else "VALID"
    return Verdict(word, (*reasons, *unsteady), tuple(slo.judge(summary) for slo in slos))
