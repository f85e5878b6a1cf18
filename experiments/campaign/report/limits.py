"""What the runs of a search show near its capacity, and no more: facts, none of which says what limits the chain.

A stage that waits for a busy core slows down as one at its own limit does, and the one that uses most CPU need not be
the one that limits. Only an intervention tells: `experiments.limits`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.analysis.usage import NO_STAGES
from experiments.report.format import NBSP, listed, rounded

ACCEPTED_SHARE = 0.999
UNSAID = "None of this says what limits the chain: that takes an intervention, `emostream limits`."
# Fewer CPU than this would be shown as 0.0.
LEAST_CORES = 0.05
_CPU = "cpu_share_"
_APART = (*NO_STAGES, "intervention")


@dataclass(frozen=True)
class Fact:
    """What was seen in one run: `what` is the kind, `words` a sentence, `figures` its figures by summary key."""

    what: str
    words: str
    figures: dict[str, float]


def facts(run: Mapping[str, Any], cores: int | None) -> list[Fact]:
    """Return what the summary of a `run` near the capacity shows, on a machine with so many `cores` (None: unknown).

    It uses `valid`, `unsteady`, `reasons` (words), `offered_per_s`, `accepted_per_s` and `cpu_share_<stage>`; a missing
    figure gives no fact.
    """
    found = [_invalid(run), _used(run, cores), _refused(run)]
    return [fact for fact in found if fact is not None]


def _invalid(run: Mapping[str, Any]) -> Fact | None:
    if run.get("valid", True):
        return None
    reasons = " ".join(run.get("reasons") or ()) or "no reason was recorded"
    if run.get("unsteady"):
        return Fact("unsteady", f"There the run is UNSTEADY: {reasons}", {})
    return Fact("invalid", f"There the run is INVALID, and its figures are not those of the chain: {reasons}", {})


def _used(run: Mapping[str, Any], cores: int | None) -> Fact | None:
    shares = {
        str(key).removeprefix(_CPU): figure
        for key in run
        if str(key).startswith(_CPU) and (figure := _figure(run, str(key))) is not None
    }
    stages = {stage: share for stage, share in shares.items() if stage not in _APART}
    if not stages:
        return None
    total = shares.get("machine", sum(stages.values()))
    largest = sorted(stages.items(), key=lambda item: -item[1])
    words = listed([f"{stage} {share:.2f}" for stage, share in largest if share >= LEAST_CORES])
    of = f"of {cores} cores" if cores else f"core{'' if total == 1 else 's'}"
    beside = f": {words}" if words else ""
    return Fact(
        "cpu",
        f"There {total:.2f}{NBSP}{of} were in use{beside}.",
        {f"{_CPU}{stage}": share for stage, share in sorted(shares.items(), key=lambda item: -item[1])},
    )


def _refused(run: Mapping[str, Any]) -> Fact | None:
    offered, accepted = _figure(run, "offered_per_s"), _figure(run, "accepted_per_s")
    if offered is None or accepted is None or accepted >= ACCEPTED_SHARE * offered:
        return None
    return Fact(
        "refused",
        f"Of {rounded(offered)} reactions per second ingest accepted {rounded(accepted)}.",
        {"offered_per_s": offered, "accepted_per_s": accepted},
    )


def _figure(summary: Mapping[str, Any], key: str) -> float | None:
    value = summary.get(key)
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None
