"""The result of a search: the capacity with its interval, its probes, and what the figures show near it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.verdict import SLOS
from experiments.campaign import campaign_file
from experiments.campaign.campaign_file import State
from experiments.campaign.report import provenance
from experiments.campaign.report import read as read_back
from experiments.campaign.report.estimates import derived
from experiments.campaign.report.levels import axis_text, phrase
from experiments.campaign.report.limits import UNSAID, Fact, facts
from experiments.report.format import NBSP, count, left_out, listed
from experiments.stats.capacity import (
    CONFIDENCE,
    FEWEST_PROBES,
    PASSING,
    Capacity,
    Difference,
    Probe,
    Search,
    capacity,
    difference,
    unmeasurable,
)
from pipeline.errors import SettingError

RAMP = (
    "The probes were placed by a ramp and a bisection, not at random: a change of the machine in that time would look "
    "like an effect of the load, and how often such an interval holds the true capacity is not known."
)


@dataclass(frozen=True)
class Footprint:
    """The probes with the instrument's CPU doubled, the capacity they give, and how it compares with the search's.

    `ratio` is None with fewer than FEWEST_PROBES valid probes of either kind.
    """

    probes: tuple[Probe, ...]
    capacity: Capacity
    ratio: Difference | None

    def sentences(self, search: Search) -> list[str]:
        """Return the capacity with the instrument doubled, and what the instrument itself costs the chain."""
        made = count(self.capacity.probes, "valid probe")
        sentences = []
        if self.ratio is None:
            sentences.append(
                f"The instrument’s footprint is not known yet: {made} had its CPU doubled, and {FEWEST_PROBES} are "
                "the fewest."
            )
        else:
            at = self.capacity.estimate
            known = "" if at is None else f" is {phrase(search.factor, _short(at))},"
            times = f"{self.ratio.ratio:.2f} times as high (95{NBSP}% interval {_between(self.ratio)}; {made})"
            sentences.append(
                f"With the instrument’s CPU doubled the capacity{known or ' is'} {times}. {_said(self.ratio)}"
            )
        if left := [probe for probe in self.probes if not probe.valid]:
            unsteady = sum(probe.unsteady for probe in left)
            sentences.append(f"Of {count(len(self.probes), 'run')} with it {left_out(len(left) - unsteady, unsteady)}.")
        if (ceiling := unmeasurable(self.probes)) < math.inf:
            sentences.append(f"With it {phrase(search.factor, ceiling)} and more are not measurable.")
        if self.capacity.probes and not self.capacity.ended:
            sentences.append("Its probes are not finished.")
        return sentences


def _between(ratio: Difference) -> str:
    if math.isinf(ratio.high):
        return "without ends" if ratio.low <= 0 else f"from {ratio.low:.2f} up"
    return f"up to {ratio.high:.2f}" if ratio.low <= 0 else f"{ratio.low:.2f} to {ratio.high:.2f}"


def _said(ratio: Difference) -> str:
    if ratio.high < 1:
        return "The instrument takes from the capacity that it measures."
    if ratio.low > 1:
        return "A higher capacity with less CPU has another cause: measure again."
    return "No footprint of the instrument can be told from zero."


@dataclass(frozen=True)
class Found:
    """A search's probes in their order, the capacity they give, what the fail next above it shows, and the objectives
    missed there. `random`: the probes were placed at random. `footprint` is None for a search without it.
    """

    search: Search
    probes: tuple[Probe, ...]
    capacity: Capacity
    facts: tuple[Fact, ...]
    missed: tuple[str, ...]
    random: bool = True
    footprint: Footprint | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what capacity.json holds."""
        return {
            **asdict(self.capacity),
            "confidence": CONFIDENCE,
            "passing": PASSING,
            "headline": self.headline,
            "search": asdict(self.search),
            "placed_at_random": self.random,
            "shown_above": [asdict(fact) for fact in self.facts],
            "missed_above": list(self.missed),
            "probes": [asdict(probe) for probe in self.probes],
            "footprint": None if self.footprint is None else asdict(self.footprint),
        }

    @property
    def estimate_per_s(self) -> float | None:
        """The estimate in reactions per second; None without one, or if the search was for another factor."""
        return self.capacity.estimate if self.search.factor == "rate_per_s" else None

    @property
    def headline(self) -> str:
        """The capacity in one sentence, with how many probes passed below, in and above its interval."""
        known, factor = self.capacity, self.search.factor
        if not known.probes:
            return "No load could be measured yet."
        if known.probes < FEWEST_PROBES:
            return (
                f"No capacity is stated yet: {self._passed()} passed, and {FEWEST_PROBES} valid probes are the fewest "
                "for an interval."
            )
        interval = f"95{NBSP}% interval"
        if known.low is not None and known.high is not None and known.estimate is not None:
            text = (
                f"The chain meets every objective in nine runs of ten at {phrase(factor, _short(known.estimate))} "
                f"({interval} {axis_text(_short(known.low))} to {axis_text(_short(known.high))})"
            )
        elif known.low is not None:
            text = (
                f"The chain meets every objective in nine runs of ten at {phrase(factor, _short(known.low))} or more "
                f"(lower end of the {interval}; the probes give no upper end)"
            )
        elif known.high is not None:
            text = (
                f"The chain meets every objective in nine runs of ten at {phrase(factor, _short(known.high))} at most "
                f"(upper end of the {interval}; the probes give no lower end)"
            )
        else:
            text = "The probes do not bound the load at which nine runs of ten meet every objective"
        return f"{text}: {self._passed()} passed."

    def sentences(self) -> list[str]:
        """Return the capacity, what bounds it, the objectives missed above it, and what is seen there."""
        sentences = [self.headline]
        unsteady = sum(probe.unsteady for probe in self.probes)
        why = left_out(sum(not probe.valid for probe in self.probes) - unsteady, unsteady)
        if why:
            sentences.append(
                f"Of {count(len(self.probes), 'run')} {why}. Such a run counts neither as passed nor as failed."
            )
        ceiling = unmeasurable(self.probes)
        if self.capacity.probes and ceiling < float("inf"):
            kinds = {"UNSTEADY" if one.unsteady else "INVALID" for one in self.probes if one.load == ceiling}
            sentences.append(
                f"{phrase(self.search.factor, ceiling)} and more are not measurable: the run was "
                f"{' or '.join(sorted(kinds))} each time."
            )
        if self.capacity.probes and not self.capacity.ended:
            sentences.append("The search has not ended.")
        if self.footprint is not None:
            sentences += self.footprint.sentences(self.search)
        if not self.random:
            sentences.append(RAMP)
        if self.missed:
            names = [f"“{SLOS[key].name if key in SLOS else key}”" for key in self.missed]
            sentences.append(f"Above it, {listed(names)} {'is' if len(names) == 1 else 'are'} missed first.")
        if self.facts:
            sentences += [fact.words for fact in self.facts]
            sentences.append(UNSAID)
        return sentences

    def _passed(self) -> str:
        """Return how many of the valid probes passed, by where they lie: "5 of 5 probes below it, …"."""
        valid = [probe for probe in self.probes if probe.valid]
        low, high = self.capacity.low, self.capacity.high
        if low is None and high is None:
            return _of(valid, f"at {_range(valid)}")
        within = [one for one in valid if (low is None or one.load >= low) and (high is None or one.load <= high)]
        parts = [
            ([one for one in valid if low is not None and one.load < low], "below the interval"),
            (within, "in it" if low is not None else "in the interval"),
            ([one for one in valid if high is not None and one.load > high], "above it"),
        ]
        words = [_of(probes, where) for probes, where in parts if probes]
        return listed(words)


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
            "directory of such a campaign, or make one with: emostream sweep capacity"
        )
    return result


def found(state: State, runs: pd.DataFrame, cores: int | None) -> Found | None:
    """Return the result of the campaign's search, None where its design has none; `runs` is estimates.derived."""
    if state.design.search is None:
        return None
    search = state.design.search_plan()
    rows, doubled = (
        [{str(key): value for key, value in row.items()} for row in read_back.listed(runs, part).to_dict("records")]
        for part in (state.own, state.part(doubled=True))
    )
    probes = _probes(rows, search.factor)
    result = capacity(search, probes)
    failing = _fail_above(rows, search.factor, result.estimate)
    decisive = failing if failing is not None else _given_up(rows, search.factor, unmeasurable(probes))
    shown = tuple(facts(decisive, cores)) if decisive else ()
    missed = tuple(_missed(failing)) if failing else ()
    footprint = None
    if state.design.search.footprint:
        plan = state.design.search_plan(doubled=True)
        others = _probes(doubled, plan.factor)
        footprint = Footprint(others, capacity(plan, others), difference(search, probes, plan, others))
    return Found(search, probes, result, shown, missed, state.design.search.placement == "random", footprint)


def _probes(rows: Sequence[Mapping[str, Any]], factor: str) -> tuple[Probe, ...]:
    return tuple(
        Probe(
            float(row[f"factor_{factor}"]),
            bool(row["passed"]),
            bool(row["valid"]),
            _why(row),
            bool(row["unsteady"]),
        )
        for row in rows
    )


def _fail_above(rows: list[dict[str, Any]], factor: str, at: float | None) -> dict[str, Any] | None:
    """Return the valid run that missed an objective at the load next above the capacity `at`.

    If none is above it, it is the highest fail; without a capacity it is the lowest.
    """
    name = f"factor_{factor}"
    fails = sorted((row for row in rows if row["valid"] and not row["passed"]), key=lambda row: float(row[name]))
    if not fails or at is None:
        return fails[0] if fails else None
    return next((row for row in fails if row[name] >= at), fails[-1])


def _given_up(rows: list[dict[str, Any]], factor: str, load: float) -> dict[str, Any] | None:
    """Return the last run, which is not valid, at the load that cannot be measured."""
    return next((row for row in reversed(rows) if not row["valid"] and row[f"factor_{factor}"] == load), None)


def _missed(row: Mapping[str, Any]) -> list[str]:
    slos = row.get("slos")
    return [key for key, met in slos.items() if not met] if isinstance(slos, Mapping) else []


def _why(row: Mapping[str, Any]) -> str:
    if not row["valid"]:
        return " ".join(row["reasons"])
    return ", ".join(_missed(row))


def _of(probes: list[Probe], where: str) -> str:
    return f"{sum(probe.passed for probe in probes)} of {len(probes)} probes {where}"


def _range(probes: list[Probe]) -> str:
    loads = sorted({probe.load for probe in probes})
    return axis_text(loads[0]) if len(loads) == 1 else f"{axis_text(loads[0])} to {axis_text(loads[-1])}"


def _short(load: float) -> float:
    """Return a load with three significant digits: its interval is wider than the fourth."""
    return float(f"{load:.3g}")
