"""The result of a search: the capacity as an interval, and the stage that limits it, in words and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from experiments.analysis.verdict import SLOS
from experiments.campaign import campaign_file
from experiments.campaign.campaign_file import State
from experiments.campaign.report import provenance
from experiments.campaign.report import read as read_back
from experiments.campaign.report.estimates import derived
from experiments.campaign.report.levels import phrase
from experiments.campaign.report.limits import Evidence, limits
from experiments.stats.capacity import Capacity, Probe, Search, capacity
from pipeline.errors import SettingError

_UNKNOWN_CORES = 1_000_000  # then no machine counts as full


@dataclass(frozen=True)
class Found:
    """A search's probes in their order, the capacity they give, and the evidence for the stage that limits it."""

    search: Search
    probes: tuple[Probe, ...]
    capacity: Capacity
    evidence: tuple[Evidence, ...]
    missed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what capacity.json holds."""
        return {
            **asdict(self.capacity),
            "search": asdict(self.search),
            "limiting": [asdict(evidence) for evidence in self.evidence],
            "missed_at_lowest_fail": list(self.missed),
            "probes": [asdict(probe) for probe in self.probes],
        }

    def sentences(self) -> list[str]:
        """Return the capacity, the objectives missed above it, and the limiting stage, for the findings."""
        low, high, factor = self.capacity.highest_pass, self.capacity.lowest_fail, self.search.factor
        if low is not None and high is not None:
            first = f"The chain carries {phrase(factor, low)} with every objective met{self._share(low)}; "
            first += f"at {high:,g} it misses {self._missed()}"
        elif low is not None:
            first = f"The chain carries at least {phrase(factor, low)}: no load was found that misses an objective"
        elif high is not None:
            first = f"At {phrase(factor, high)}, the lowest load measured, the chain already misses {self._missed()}"
        else:
            first = "No load could be measured yet"
        rest = self.capacity.why.partition(". ")[2]
        sentences = [first + "."] + ([rest] if rest else [])
        if self.capacity.confirmed:
            # A search may end with a fail that was probed once, or without a fail.
            fails = self._valid_at(high) if high is not None else []
            sentences.append(
                "Both ends were measured at least twice."
                if len(fails) > 1
                else "The highest load that passed was measured at least twice."
            )
        if self.evidence:
            strongest = self.evidence[0]
            sentences.append(f"The limiting stage is {_stage(strongest.stage)}. {strongest.reason.rstrip('.')}.")
        elif high is not None:
            sentences.append("The figures do not show which stage limits it.")
        return sentences

    def _valid_at(self, load: float) -> list[Probe]:
        return [probe for probe in self.probes if probe.valid and math.isclose(probe.load, load, rel_tol=1e-3)]

    def _share(self, load: float) -> str:
        """Return in how many runs a load passed, if not in all."""
        valid = self._valid_at(load)
        passed = sum(probe.passed for probe in valid)
        return "" if passed == len(valid) else f" in {passed} of {len(valid)} runs"

    def _missed(self) -> str:
        names = [SLOS[key].name if key in SLOS else key for key in self.missed]
        return " and ".join(f"“{name}”" for name in names) or "an objective"


def read(campaign_dir: Path) -> Found:
    """Return the result of the search in `campaign_dir`, finished or not.

    Raises RunFileError naming a file that is missing or damaged, SettingError for a campaign without a `search`.
    """
    state = campaign_file.read(campaign_dir)
    runs = derived(read_back.runs(campaign_dir))
    result = found(state, runs, provenance.facts(campaign_dir, runs).cores)
    if result is None:
        raise SettingError(
            f"{campaign_dir} is not a search for a capacity: the design in its campaign.json has no `search`. Give the "
            "directory of such a campaign, or make one with: python -m experiments sweep "
            "experiments/designs/capacity.yaml"
        )
    return result


def found(state: State, runs: pd.DataFrame, cores: int | None) -> Found | None:
    """Return the result of the campaign's search, None where its design has none; `runs` is estimates.derived."""
    if state.design.search is None:
        return None
    search = Search(**msgspec.structs.asdict(state.design.search))
    rows = [{str(key): value for key, value in row.items()} for row in runs.to_dict("records")]
    probes = tuple(
        Probe(float(row[f"factor_{search.factor}"]), bool(row["passed"]), bool(row["valid"]), _why(row)) for row in rows
    )
    result = capacity(search, probes)
    passing = _run_at(rows, search.factor, result.highest_pass, passed=True)
    failing = _run_at(rows, search.factor, result.lowest_fail, passed=False)
    decisive = failing if failing is not None else _given_up(rows, search.factor, result.highest_pass)
    evidence = tuple(limits(passing, decisive, cores or _UNKNOWN_CORES)) if decisive else ()
    return Found(search, probes, result, evidence, tuple(_missed(failing)) if failing else ())


def _run_at(rows: list[dict[str, Any]], factor: str, load: float | None, *, passed: bool) -> dict[str, Any] | None:
    """Return the last valid run at a load, with the outcome that the load has."""
    if load is None:
        return None
    at_load = [
        row
        for row in rows
        if row["valid"] and bool(row["passed"]) is passed and abs(row[f"factor_{factor}"] / load - 1) < 1e-3
    ]
    return at_load[-1] if at_load else None


def _given_up(rows: list[dict[str, Any]], factor: str, highest: float | None) -> dict[str, Any] | None:
    """Return the last INVALID run at the lowest load above the highest pass, for a capacity that no fail bounds."""
    beyond = [row for row in rows if not row["valid"] and row[f"factor_{factor}"] > (highest or 0)]
    return min(reversed(beyond), key=lambda row: float(row[f"factor_{factor}"]), default=None)


def _missed(row: Mapping[str, Any]) -> list[str]:
    slos = row.get("slos")
    return [key for key, met in slos.items() if not met] if isinstance(slos, Mapping) else []


def _why(row: Mapping[str, Any]) -> str:
    if not row["valid"]:
        return " ".join(row["reasons"])
    return ", ".join(_missed(row))


def _stage(stage: str) -> str:
    own = {"load": "the instrument's load generator", "receivers": "the instrument's receivers"}
    return own.get(stage, stage.capitalize() if stage in ("kafka", "spark") else f"the {stage.replace('-', ' ')}")
