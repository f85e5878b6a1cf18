"""What a finished (or running) capacity campaign says: its probes, the interval, and the stage that limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import campaign_data
from experiments.statistics.capacity import Capacity, Probe, Search, capacity
from experiments.statistics.limits import Evidence, limits
from pipeline.errors import SettingError


@dataclass(frozen=True)
class Result:
    """A search carried out: its probes in the order they happened, the interval, and the evidence of the limit."""

    search: Search
    probes: tuple[Probe, ...]
    capacity: Capacity
    evidence: tuple[Evidence, ...]

    def sentences(self) -> list[str]:
        """Return the findings in words: the interval, how sure it is, and what limits."""
        found = self.capacity
        words = [found.why]
        if found.confirmed:
            above = ", and 10 % above it the chain failed" if found.bounded_above else ""
            words.append(f"It is confirmed: {self.search.factor} {found.highest_pass:g} passed again{above}.")
        if self.evidence:
            first, *others = self.evidence
            words.append(f"What limits it is {first.stage}. {first.reason}")
            words.extend(f"Further evidence, of {other.stage}: {other.reason}" for other in others)
        elif found.lowest_fail is not None:
            words.append("The figures at the fail name no stage that limits it.")
        return words


def result(campaign_dir: Path) -> Result:
    """Return what the campaign at `campaign_dir` found.

    Raises SettingError for what campaign_data refuses, and for a campaign whose design has no `search`.
    """
    search = search_of(campaign_data.about(campaign_dir), campaign_dir)
    table = campaign_data.runs(campaign_dir)
    found = probes(table, search.factor)
    interval = capacity(search, found)
    passing, failing = _deciding(table, search, found, interval)
    evidence = limits(passing, failing, _cores(campaign_dir / "runs" / failing["run"])) if failing else []
    return Result(search, tuple(found), interval, tuple(evidence))


def search_of(about: dict[str, Any], campaign_dir: Path) -> Search:
    """Return the search of a campaign's design, checked."""
    given = about["design"].get("search")
    if not isinstance(given, dict):
        raise SettingError(
            f"{campaign_dir} is no search for a capacity: the design in its campaign.json has no `search`. Give the "
            "directory of such a campaign, or make one with: python -m experiments sweep "
            "experiments/designs/capacity.yaml"
        )
    try:
        return Search(**given)
    except TypeError as error:
        raise SettingError(
            f"{campaign_dir / 'campaign.json'}: search is {given!r}: give factor, start, growth, most and resolution"
        ) from error


def probes(table: pd.DataFrame, factor: str) -> list[Probe]:
    """Return the probes among campaign_data.runs, in the order they happened."""
    return [
        Probe(float(row[f"factor_{factor}"]), bool(row["passed"]), bool(row["valid"]), _why(row))
        for row in _rows(table)
    ]


def _why(row: dict[str, Any]) -> str:
    if not row["valid"]:
        return " ".join(row["reasons"])
    slos = row.get("slos")
    return ", ".join(key for key, met in slos.items() if not met) if isinstance(slos, dict) else ""


def _deciding(
    table: pd.DataFrame, search: Search, found: Sequence[Probe], interval: Capacity
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the rows of the last pass at the highest pass, and of the last fail at the lowest fail (where no
    fail bounds the capacity: of the lowest load above that was INVALID).
    """
    rows = list(zip(found, _rows(table), strict=True))
    of_pass = [row for probe, row in rows if probe.load == interval.highest_pass and probe.valid and probe.passed]
    failed = [(probe.load, row) for probe, row in rows if probe.valid and not probe.passed]
    of_fail = [row for load, row in failed if load == interval.lowest_fail]
    if interval.lowest_fail is None:
        beyond = [(probe.load, row) for probe, row in rows if not probe.valid]
        beyond = [(load, row) for load, row in beyond if load > (interval.highest_pass or 0)]
        of_fail = [row for load, row in beyond if load == min(load for load, _ in beyond)]
    return of_pass[-1] if of_pass else None, of_fail[-1] if of_fail else None


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _cores(run_dir: Path) -> int:
    path = run_dir / "manifest.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["cores"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingError(
            f"{path} does not say how many cores there were ({error!r}): restore the file; without it no one can "
            "tell a full machine"
        ) from error
