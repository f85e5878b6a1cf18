"""Which stage limits the capacity, named from evidence at the highest pass and the lowest fail.

The rules, strongest first; each that holds gives its evidence:

1. The run at the fail is INVALID: the instrument gave up, and the chain is not known to have.
2. The machine is full (mean cores in use >= 90 % of those there are): the process that takes most.
3. Reactions were refused (accepted below 99.9 % of offered): ingest.
4. Micro-batches ran out of time (headroom or lag objective failed): Spark.
5. A hop takes longer at the fail than at the pass, by 50 ms and 10 % or more: the stage of the hop that grew
   most. Waiting for a trigger is Spark's, for it grows where micro-batches overrun.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.analysis.hops import HOPS

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
    """That `stage` limits, and the `reason` in a sentence with its `figures` by summary key."""

    stage: str
    reason: str
    figures: dict[str, float]


def limits(passing: Mapping[str, Any] | None, failing: Mapping[str, Any], cores: int) -> list[Evidence]:
    """Return the evidence, strongest first, from the summaries of a run at the highest pass (None: no load
    passed) and one at the lowest fail, and the `cores` of the machine.

    Of a summary: `valid`, `reasons` (words), `slos` (key -> passed), `offered_per_s`, `accepted_per_s`,
    `headroom`, `lag_slope_upper_share`, `cpu_share_<stage>` and `hop_<name>_mean_ms`; what is missing is no
    evidence. An empty list says that these figures name no stage.
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
    reasons = " ".join(failing.get("reasons") or ()) or "no reason was recorded"
    return Evidence("load", f"The instrument gave up before the chain did: the run is INVALID ({reasons})", {})


def _full(failing: Mapping[str, Any], cores: int) -> Evidence | None:
    shares = {
        key.removeprefix(_CPU): figure
        for key in failing
        if key.startswith(_CPU) and (figure := _figure(failing, key)) is not None
    }
    # What is nobody's, the system's network among it, fills the machine as well, but is no stage.
    shares.pop("others", None)
    total = shares.pop("machine", sum(shares.values()))
    if not shares or total < FULL_SHARE * cores:
        return None
    stage = max(shares, key=lambda name: shares[name])
    of = "the instrument's own" if stage in _INSTRUMENT else "the chain's"
    return Evidence(
        stage,
        f"The machine is full: {total:.2f} of {cores} cores are in use, and {of} {stage} takes most, "
        f"{shares[stage]:.2f}.",
        {f"{_CPU}{name}": share for name, share in sorted(shares.items(), key=lambda item: -item[1])},
    )


def _refused(failing: Mapping[str, Any]) -> Evidence | None:
    offered, accepted = _figure(failing, "offered_per_s"), _figure(failing, "accepted_per_s")
    if offered is None or accepted is None or accepted >= ACCEPTED_SHARE * offered:
        return None
    return Evidence(
        "ingest",
        f"Ingest refused reactions: of {offered:,.0f} a second it accepted {accepted:,.0f}.",
        {"offered_per_s": offered, "accepted_per_s": accepted},
    )


def _late(failing: Mapping[str, Any]) -> Evidence | None:
    slos = failing.get("slos")
    slos = slos if isinstance(slos, Mapping) else {}
    words = {
        "headroom": "micro-batches take {:.0%} of their interval at the 95th percentile",
        "lag_slope_upper_share": "the consumer lag may be growing by {:.1%} of the load",
    }
    failed = {key: _figure(failing, key) for key in words if slos.get(key) is False}
    figures = {key: figure for key, figure in failed.items() if figure is not None}
    if not figures:
        return None
    told = " and ".join(words[key].format(figure) for key, figure in figures.items())
    return Evidence("spark", f"Spark runs out of time: {told}.", figures)


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
        f"Of all hops {hop.replace('_', ' ')} grew most from pass to fail: from {before:,.0f} ms to {after:,.0f} ms "
        "in the mean.",
        {f"hop_{hop}_mean_ms": after, f"hop_{hop}_growth_ms": after - before},
    )


def _figure(summary: Mapping[str, Any], key: str) -> float | None:
    value = summary.get(key)
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None
