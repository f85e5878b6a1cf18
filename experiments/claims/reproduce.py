"""Carry out a reduced set of the kept campaigns' designs on this machine, and compare the published intervals."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from experiments import files
from experiments.campaign import campaign_file, design, design_file, keep
from experiments.campaign.campaign_file import State
from experiments.campaign.design import Design
from experiments.campaign.report import capacity, page, provenance
from experiments.campaign.report import read as read_back
from experiments.campaign.sweep import expected_s, sweep
from experiments.report.format import DASH
from experiments.report.pages import write_json
from experiments.stats.capacity import FEWEST_PROBES
from pipeline.errors import SettingError

FOLDER = "reproduction"
RESULT = "reproduction.json"
FIGURES = {
    "e2e_p50_s": "tap to screen, median, s",
    "e2e_p99_s": "tap to screen, 99 in 100 within, s",
    "e2e_excess_p50_s": "above the floor, median, s",
    "e2e_excess_p99_s": "above the floor, 99 in 100 within, s",
    "batch_p95_s": "micro-batch, p95, s",
}
"""The figures that are published with an interval, or with the range of the runs."""


@dataclass(frozen=True)
class Compared:
    """A published interval or range, and what this machine gave: the median and the range of its `runs` valid runs."""

    campaign: str
    level: str
    figure: str
    published: float
    low: float
    high: float
    here: float
    least: float
    most: float
    runs: int

    @property
    def holds(self) -> bool | None:
        """Whether the range here and what is published overlap; None if nothing was measured."""
        if math.isnan(self.least) and math.isnan(self.most):
            return None
        return self.least <= self.high and self.low <= self.most


@dataclass(frozen=True)
class Reproduction:
    """The comparisons, and the machines of the published campaigns and of this one."""

    compared: tuple[Compared, ...]
    machines: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return what reproduction.json holds."""
        rows = [{**vars(one), "holds": one.holds} for one in self.compared]
        return {"intervals": rows, "machines": self.machines}

    def lines(self) -> Iterator[str]:
        """Yield the table that a terminal shows."""
        yield f"{'figure':<40} {'published':>28} {'here':>28}  runs  holds"
        for one in self.compared:
            published = f"{_form(one.published)} ({_form(one.low)} to {_form(one.high)})"
            here = f"{_form(one.here)} ({_form(one.least)} to {_form(one.most)})"
            holds = {None: "not measured", True: "yes", False: "no"}[one.holds]
            yield f"{one.figure:<40} {published:>28} {here:>28}  {one.runs:>4}  {holds}"
        for where, machine in self.machines.items():
            yield f"{where}: {machine}"


def reproduce(reports: Path, minutes: float) -> Reproduction:
    """Sweep reduced designs of all kept campaigns within `minutes`; return the comparison.

    On a disturbed machine, where runs are made again, there are fewer in the end. The sweeps are in `reproduction/` of
    the reports, and go on if they were interrupted or had no more time. Raises SettingError if no campaign is kept or
    the minutes are too few for one block of each, and as sweep does if runs fail.
    """
    kept = keep.all_kept(reports)
    if not kept:
        raise SettingError(
            f"{reports / keep.FOLDER} has no kept campaign: there is nothing to reproduce; keep one with emostream keep"
        )
    states = {path: campaign_file.read(path) for path in kept}
    designs = reduced([state.design for state in states.values()], minutes)
    until_s = time.monotonic() + (minutes - sum(map(minutes_of, designs))) * 60
    compared, machines = [], {}
    for (path, state), smaller in zip(states.items(), designs, strict=True):
        with tempfile.TemporaryDirectory(prefix="emostream-reproduce-") as folder:
            file = Path(folder) / f"{smaller.name}.yaml"
            files.write_text(file, design_file.to_yaml(smaller))
            # The campaigns behind it keep their own time.
            until_s += minutes_of(smaller) * 60
            sweep(file, reports / FOLDER, path.name, until_s)
        here = reports / FOLDER / path.name
        compared += compare(path, state, here)
        machines[f"published {path.name}"] = _machine(path)
        machines["here"] = _machine(here)
    found = Reproduction(tuple(compared), machines)
    write_json(reports / FOLDER / RESULT, found.to_json())
    return found


def reduced(designs: list[Design], minutes: float) -> list[Design]:
    """Return the designs with as many blocks or probes, the same share of each, as fit into `minutes`.

    Each has at least one block, or the fewest probes of a search. Raises SettingError if that takes longer.
    """
    fewest = sum(minutes_of(_smaller(one, 0.0)) for one in designs)
    # Not a number is less than nothing, and more than nothing.
    if not fewest <= minutes:
        raise SettingError(
            f"--minutes is {minutes:g}: the smallest set takes {math.ceil(fewest)} minutes, give as many"
        )
    share = 1.0
    while sum(minutes_of(_smaller(one, share)) for one in designs) > minutes:
        share -= 0.02
    return [_smaller(one, max(share, 0.0)) for one in designs]


def minutes_of(one: Design) -> float:
    """Return how many minutes a sweep of the design takes if every run is VALID."""
    if one.search is not None:
        first = design.planned(one, 0, 1, {one.search.factor: one.search.least})
        return (one.search.probes + one.search.footprint) * expected_s(first) / 60
    return sum(map(expected_s, design.order(one))) / 60


def _smaller(one: Design, share: float) -> Design:
    if one.search is not None:
        probes = max(math.floor(one.search.probes * share), min(FEWEST_PROBES, one.search.probes))
        return msgspec.structs.replace(one, search=msgspec.structs.replace(one.search, probes=probes, footprint=0))
    blocks = max(math.floor(one.blocks * share), 1)
    return msgspec.structs.replace(design.with_blocks(one, blocks), intervals=False)


def compare(published: Path, state: State, here: Path) -> list[Compared]:
    """Return each published interval of a campaign beside what the campaign `here` gave."""
    if state.searches:
        ours, theirs = capacity.read(here).capacity, capacity.read(published).capacity
        ends = [_limits(theirs.low, theirs.high), _limits(ours.low, ours.high)]
        if ours.low is None and ours.high is None:
            # Too few valid probes, or none that bounds it: that holds nothing.
            ends[1] = (math.nan, math.nan)
        estimates = [math.nan if one.estimate is None else one.estimate for one in (theirs, ours)]
        words = f"capacity, {state.design.factors[0]}"
        return [Compared(published.name, "", words, estimates[0], *ends[0], estimates[1], *ends[1], ours.probes)]
    left, right = (page.read(folder).levels for folder in (published, here))
    both = left.merge(right, on=["level", "key"], suffixes=("", "_here"))
    # A percentile with few windows beyond it is published with the range of its runs.
    both["low"], both["high"] = both["low"].fillna(both["least"]), both["high"].fillna(both["most"])
    stated = both[both["key"].isin(FIGURES) & both["low"].notna()]
    return [
        Compared(
            published.name,
            row["level"],
            FIGURES[row["key"]],
            published=row["median"],
            low=row["low"],
            high=row["high"],
            here=row["median_here"],
            least=row["least_here"],
            most=row["most_here"],
            runs=int(row["runs_here"]),
        )
        for row in stated.to_dict("records")
    ]


def _limits(low: float | None, high: float | None) -> tuple[float, float]:
    return (0.0 if low is None else low, math.inf if high is None else high)


def _machine(campaign: Path) -> str:
    runs: pd.DataFrame = read_back.runs(campaign)
    return "; ".join(provenance.facts(campaign, runs).machines)


def _form(value: float) -> str:
    if math.isnan(value):
        return DASH
    return "∞" if math.isinf(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
