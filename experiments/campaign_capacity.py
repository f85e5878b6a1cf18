"""What a search came to, as a campaign's report says it: capacity_result in sentences, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments import capacity_result
from experiments.campaign_levels import phrase
from experiments.capacity_result import Result
from experiments.verdict import SLOS

_OWN = {"load": "the instrument's load generator", "receivers": "the instrument's receivers"}


def found(campaign_dir: Path, about: Mapping[str, Any]) -> Result | None:
    """Return what the search of the campaign came to, None where its design has none."""
    return capacity_result.result(campaign_dir) if about["design"].get("search") else None


def to_json(result: Result) -> dict[str, Any]:
    """Return what capacity.json holds."""
    return {
        **asdict(result.capacity),
        "search": asdict(result.search),
        "missed_at_lowest_fail": missed(result),
        "limiting": [asdict(one) for one in result.evidence],
        "probes": [asdict(probe) for probe in result.probes],
    }


def missed(result: Result) -> list[str]:
    """Return the keys of the objectives that the last run at the lowest fail missed."""
    at = [probe for probe in result.probes if probe.load == result.capacity.lowest_fail]
    failed = [probe.why for probe in at if probe.valid and not probe.passed]
    return failed[-1].split(", ") if failed and failed[-1] else []


def sentences(result: Result) -> list[str]:
    """Return the capacity, what is missed above it and what limits it."""
    low, high, factor = result.capacity.highest_pass, result.capacity.lowest_fail, result.search.factor
    names = [SLOS[key].name if key in SLOS else key for key in missed(result)]
    which = " and ".join(f"“{name}”" for name in names) or "an objective"
    if low is not None and high is not None:
        first = f"The chain carries {phrase(factor, low)} with every objective met; at {high:,g} it misses {which}."
    elif low is not None:
        first = f"The chain carries at least {phrase(factor, low)}: no load was found that misses an objective."
    elif high is not None:
        first = f"At {phrase(factor, high)}, the lowest load measured, the chain misses {which} already."
    else:
        first = "No load could be measured yet."
    rest = result.capacity.why.partition(". ")[2]
    told = [first, *([rest] if rest else [])]
    if result.capacity.confirmed:
        told.append("Both ends were measured again.")
    if result.evidence:
        strongest = result.evidence[0]
        told.append(f"The limiting stage is {_stage(strongest.stage)} ({strongest.reason.rstrip('.')}).")
    elif high is not None:
        told.append("The figures name no stage that limits it.")
    return told


def _stage(stage: str) -> str:
    return _OWN.get(stage, stage.capitalize() if stage in ("kafka", "spark") else f"the {stage.replace('-', ' ')}")
