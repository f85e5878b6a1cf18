"""What changed from a pass below the capacity to a fail above it: evidence, and not what limits the chain.

A stage that waits for a busy core slows down as one at its own limit does: only an intervention tells them apart. The
rules, strongest first; each that holds gives its evidence:

1. The run at the fail is INVALID: the instrument reached its limit, and the chain may not have.
2. The machine is full (mean cores in use >= 90 % of its cores): the process that uses most.
3. Reactions were refused (accepted below 99.9 % of offered): ingest.
4. Micro-batches ran out of time (headroom or lag objective failed): Spark.
5. A hop takes longer at the fail than at the pass, by 50 ms and 10 % or more: the stage of the hop that grew
   most. The trigger wait counts as Spark's, because it grows when micro-batches overrun.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.analysis.hops import HOPS
from experiments.report.format import hop_name, percent, rounded

FULL_SHARE = 0.9
ACCEPTED_SHARE = 0.999
GROWTH_MS, GROWTH_SHARE = 50.0, 0.1
STAGE_OF_HOP = {
    "send_delay": "load",
    "accept": "ingest",
    "buffer_wait": "ingest",
    "append": "kafka",
    "trigger_wait": "spark",
    "micro_batch": "spark",
    "publish": "main-publisher",
    "cluster": "cluster-publisher",
    "subscriber": "subscriber",
    "network": "receivers",
}
_INSTRUMENT = ("load", "receivers")
_CPU = "cpu_share_"


@dataclass(frozen=True)
class Evidence:
    """The `stage` that limits, the `reason` in a sentence, and its `figures` by summary key."""

    stage: str
    reason: str
    figures: dict[str, float]


def limits(passing: Mapping[str, Any] | None, failing: Mapping[str, Any], cores: int) -> list[Evidence]:
    """Return the evidence, strongest first, from the summaries of a run at the highest pass (None: no load
    passed) and one at the lowest fail, and the `cores` of the machine.

    It uses `valid`, `reasons` (words), `slos` (key -> passed), `offered_per_s`, `accepted_per_s`, `headroom`,
    `lag_slope_upper_share`, `cpu_share_<stage>` and `hop_<name>_mean_ms` of a summary; a missing figure gives no
    evidence. The list is empty if the figures point to no stage.
    """
    found = [
        _invalid(failing),
        _full(failing, cores),
        _refused(failing),
        _late(failing),
        _grown(passing or {}, failing),
    ]
    return [evidence for evidence in found if evidence is not None]


def _invalid(failing: Mapping[str, Any]) -> Evidence | None:
    if failing.get("valid", True):
        return None
    if failing.get("unsteady"):
        return Evidence("load", f"No run above was steady ({' '.join(failing.get('reasons') or ())})", {})
    reasons = " ".join(failing.get("reasons") or ()) or "no reason was recorded"
    return Evidence(
        "load", f"The instrument reached its limit before the chain did: the run is INVALID ({reasons})", {}
    )


def _full(failing: Mapping[str, Any], cores: int) -> Evidence | None:
    shares = {
        key.removeprefix(_CPU): figure
        for key in failing
        if key.startswith(_CPU) and (figure := _figure(failing, key)) is not None
    }
    # Other programs, and the system's network code, fill the machine as well, but are not a stage.
    shares.pop("others", None)
    total = shares.pop("machine", sum(shares.values()))
    if not shares or total < FULL_SHARE * cores:
        return None
    stage = max(shares, key=lambda name: shares[name])
    of = "the instrument's own" if stage in _INSTRUMENT else "the chain's"
    return Evidence(
        stage,
        f"The machine is full: {total:.2f} of {cores} cores are in use, and {of} {stage} uses most, "
        f"{shares[stage]:.2f}.",
        {f"{_CPU}{name}": share for name, share in sorted(shares.items(), key=lambda item: -item[1])},
    )


def _refused(failing: Mapping[str, Any]) -> Evidence | None:
    offered, accepted = _figure(failing, "offered_per_s"), _figure(failing, "accepted_per_s")
    if offered is None or accepted is None or accepted >= ACCEPTED_SHARE * offered:
        return None
    return Evidence(
        "ingest",
        f"Ingest refused reactions: of {rounded(offered)} per second it accepted {rounded(accepted)}.",
        {"offered_per_s": offered, "accepted_per_s": accepted},
    )


def _late(failing: Mapping[str, Any]) -> Evidence | None:
    slos = failing.get("slos")
    slos = slos if isinstance(slos, Mapping) else {}
    words = {
        "headroom": "micro-batches take {} of their interval at the 95th percentile",
        "lag_slope_upper_share": "the consumer lag may be growing by {} of the load",
    }
    failed = {key: _figure(failing, key) for key in words if slos.get(key) is False}
    figures = {key: figure for key, figure in failed.items() if figure is not None}
    if not figures:
        return None
    reasons = " and ".join(words[key].format(percent(figure)) for key, figure in figures.items())
    return Evidence("spark", f"Spark runs out of time: {reasons}.", figures)


def _grown(passing: Mapping[str, Any], failing: Mapping[str, Any]) -> Evidence | None:
    growth: dict[str, tuple[float, float]] = {}
    for hop in HOPS:
        before, after = _figure(passing, f"hop_{hop}_mean_ms"), _figure(failing, f"hop_{hop}_mean_ms")
        if before is not None and after is not None and after - before >= max(GROWTH_MS, GROWTH_SHARE * before):
            growth[hop] = (before, after)
    if not growth:
        return None
    hop = max(growth, key=lambda name: growth[name][1] - growth[name][0])
    before, after = growth[hop]
    return Evidence(
        STAGE_OF_HOP[hop],
        f"Of all hops, {hop_name(hop)} grew most from pass to fail: from {rounded(before)} ms to "
        f"{rounded(after)} ms in the mean.",
        {f"hop_{hop}_mean_ms": after, f"hop_{hop}_growth_ms": after - before},
    )


def _figure(summary: Mapping[str, Any], key: str) -> float | None:
    value = summary.get(key)
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None
