"""What a campaign of interventions supports: demands, elasticities, the stage that is named, and the footprint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import run_files
from experiments.campaign import campaign_file
from experiments.campaign.campaign_file import State
from experiments.campaign.report import read as read_back
from experiments.campaign.report.estimates import believed, derived
from experiments.limits.plan import INSTRUMENT, NONE, STAGE, check
from experiments.load.sender_processes import PER_PROCESS_S
from experiments.parameters import Parameters, checked
from experiments.report.format import NBSP, count, left_out, rounded
from experiments.stats.elasticity import Demand, Elasticity, Named, bound_per_s, demand, elasticity, named
from pipeline.errors import EmoStreamError

METRIC = "e2e_excess_p50_s"
"""The figure whose elasticity is taken: the median excess varies least from run to run."""
METRIC_NAME = "median latency above the floor"
OF_INSTRUMENT = ("load", "receivers")
# The CPU of the interventions themselves is zero in a run as it is. That of interrupts is part of the processes' own on
# many kernels, and would count twice.
APART = ("machine", "interrupts", "intervention")


@dataclass(frozen=True)
class Limits:
    """The result: the `load_per_s` asked for, the machine's `cores`, and per stage its elasticity and demand.

    `runs` has a row per finished run: `run, block, stage, valid, passed, reasons, reached` and the figures. `passes`
    maps a stage to how many of its valid runs met every objective, and how many there are.
    """

    state: State
    load_per_s: float
    cores: int
    runs: pd.DataFrame
    elasticities: list[Elasticity]
    named: Named
    demands: list[Demand]
    passes: dict[str, tuple[int, int]]

    @property
    def bound_per_s(self) -> float:
        """The load at which the machine's cores would all be busy, by the demands."""
        return bound_per_s({each.stage: each.cpu_s for each in self.demands}, self.cores)

    @property
    def cpu_s(self) -> float:
        """The CPU seconds per reaction of everything on the machine."""
        return sum(each.cpu_s for each in self.demands if not math.isnan(each.cpu_s))

    @property
    def instrument_cpu_s(self) -> float:
        """The instrument's part of them."""
        return sum(each.cpu_s for each in self.demands if each.stage in OF_INSTRUMENT)

    def to_json(self) -> dict[str, Any]:
        """Return what result.json holds."""
        return {
            "load_per_s": self.load_per_s,
            "cores": self.cores,
            "metric": METRIC,
            "named": self.named.stage,
            "reason": self.named.reason,
            "findings": [sentence.replace(NBSP, " ") for sentence in sentences(self)],
            "runs": len(self.runs),
            "left_out": int((~self.runs["valid"].astype(bool)).sum()),
            "bound_per_s": self.bound_per_s,
            "cpu_s_per_reaction": self.cpu_s,
            "cpu_s_per_reaction_of_instrument": self.instrument_cpu_s,
            "elasticities": elasticity_rows(self),
            "demands": demand_rows(self),
        }


def read(directory: Path) -> Limits:
    """Return what the campaign in `directory` supports, finished or not.

    Raises RunFileError naming a file that is missing or damaged, SettingError for a campaign that slows no stage, and
    EmoStreamError if no run as it is can be used: none is valid, or half of the reactions never arrived in any.
    """
    state = campaign_file.read(directory)
    check(state.design)
    table = derived(read_back.runs(directory))
    if not table.empty:
        table = table.rename(columns={f"factor_{STAGE}": "stage"})
        table["reached"] = [_reached(directory, row) for row in table.to_dict("records")]
    parameters = checked({name: value for name, value in state.design.given({}, 0).items() if name != "slos"})
    return found(state, table, parameters, _cores(directory, table))


def found(state: State, runs: pd.DataFrame, parameters: Parameters, cores: int) -> Limits:
    """Return the result from the finished `runs`, as `read` does."""
    valid = believed(runs) if len(runs) else runs
    base = valid[valid["stage"] == NONE] if len(valid) else valid
    load = f"{parameters.rate_per_s:,.6g} reactions per second"
    if base.empty:
        raise EmoStreamError(
            f"no run as it is was valid at {load}: see its reasons in campaign.json, and start the command again"
        )
    if base[METRIC].isin([math.inf]).all():
        raise EmoStreamError(
            f"at {load} half of the reactions or more never arrived in any run as it is: the load misses everything; "
            "give a lower one with --load"
        )
    stages = [str(level[STAGE]) for level in state.design.levels if level[STAGE] != NONE]
    elasticities = [_elasticity(stage, base, valid[valid["stage"] == stage]) for stage in stages]
    passes = {
        stage: (int(of_stage["passed"].astype(bool).sum()), len(of_stage))
        for stage in (NONE, *stages)
        for of_stage in [valid[valid["stage"] == stage]]
    }
    demands = _demands(base, parameters)
    return Limits(state, parameters.rate_per_s, cores, runs, elasticities, named(elasticities), demands, passes)


def sentences(result: Limits) -> list[str]:
    """Return what the campaign supports, in sentences that claim no more than its data."""
    blocks = max((one.blocks for one in result.elasticities), default=0)
    said = [
        f"At {rounded(result.load_per_s)} reactions per second, in {count(blocks, 'block')} of one run as it is and "
        "one run per stage with that stage slowed:",
        _naming(result),
    ]
    smallest = [one.detectable for one in result.elasticities if not math.isnan(one.detectable)]
    if smallest:
        said.append(
            f"The smallest elasticity that these blocks would have told from zero in 80{NBSP}% of cases is "
            f"{_span(min(smallest), max(smallest))}, by stage."
        )
    said += _footprint(result)
    if result.cpu_s > 0:
        said.append(
            f"A reaction takes {_micro(result.cpu_s)} of CPU in all, {_micro(result.instrument_cpu_s)} of it the "
            f"instrument's: if all of it grew in proportion to the load, {result.cores} cores would be full at "
            f"{rounded(result.bound_per_s)} reactions per second."
        )
    unsteady = int(result.runs["unsteady"].astype(bool).sum())
    why = left_out(int((~result.runs["valid"].astype(bool)).sum()) - unsteady, unsteady)
    if why:
        said.append(f"Of {count(len(result.runs), 'run')} {why}; they are left out.")
    return said


def elasticity_rows(result: Limits) -> list[dict[str, Any]]:
    """Return a row per stage that was slowed."""
    return [
        {
            "stage": one.stage,
            "blocks": one.blocks,
            "share": one.share,
            "elasticity": one.estimate,
            "low": one.low,
            "high": one.high,
            "detectable": one.detectable,
            "ratio": one.ratio.estimate if one.ratio.kind == "ratio" else math.nan,
            "ratio_low": one.ratio.low if one.ratio.kind == "ratio" else math.nan,
            "ratio_high": one.ratio.high if one.ratio.kind == "ratio" else math.nan,
            "passed": result.passes[one.stage][0],
            "runs": result.passes[one.stage][1],
            "named": one.stage == result.named.stage,
        }
        for one in result.elasticities
    ]


def demand_rows(result: Limits) -> list[dict[str, Any]]:
    """Return a row per stage with its service demand, in microseconds of CPU per reaction, largest first."""
    total = result.cpu_s
    return [
        {
            "stage": each.stage,
            "runs": each.runs,
            "cpu_us": each.cpu_s * 1e6,
            "low_us": each.low * 1e6,
            "high_us": each.high * 1e6,
            "share": each.cpu_s / total if total > 0 else math.nan,
            "cores": each.cpu_s * result.load_per_s,
            "processes": each.processes,
            "bound_per_s": each.bound_per_s,
        }
        for each in sorted(result.demands, key=lambda each: -each.cpu_s)
    ]


def _naming(result: Limits) -> str:
    stage = result.named.stage
    if stage is None:
        return f"no stage can be named as the one that limits ({result.named.reason})."
    one = next(each for each in result.elasticities if each.stage == stage)
    # A false name is rare, and not excluded.
    what = (
        "the instrument limits, so that the runs measure the instrument and not the chain"
        if stage == INSTRUMENT
        else f"{stage} limits"
    )
    return (
        f"{what}. With its CPU time dilated by {1 / (1 - one.share):.3g}, the {METRIC_NAME} was "
        f"{_times(one.ratio.estimate)} as large (95{NBSP}% interval {_span(one.ratio.low, one.ratio.high)}), an "
        f"elasticity of {one.estimate:.2g} ({_span(one.low, one.high)}); {result.named.reason}."
    )


def _footprint(result: Limits) -> list[str]:
    one = next((each for each in result.elasticities if each.stage == INSTRUMENT), None)
    if one is None or one.ratio.kind != "ratio" or math.isnan(one.ratio.low):
        return []
    change = (
        "No footprint can be told from zero"
        if not one.ratio.excludes_none
        else "The instrument changes what it measures at this load"
    )
    return [
        f"With the instrument's CPU time multiplied by {1 / (1 - one.share):.2f}, the {METRIC_NAME} was "
        f"{_times(one.ratio.estimate)} as large ({_span(one.ratio.low, one.ratio.high)}). {change}."
    ]


def _elasticity(stage: str, base: pd.DataFrame, slowed: pd.DataFrame) -> Elasticity:
    pairs = base[["block", METRIC]].merge(slowed[["block", METRIC, "reached"]], on="block", suffixes=("", "_slowed"))
    return elasticity(stage, pairs[METRIC].tolist(), pairs[f"{METRIC}_slowed"].tolist(), pairs["reached"].tolist())


def _demands(base: pd.DataFrame, parameters: Parameters) -> list[Demand]:
    prefix = "cpu_share_"
    stages = [str(name).removeprefix(prefix) for name in base.columns if str(name).startswith(prefix)]
    at_most = processes(parameters)
    accepted = base["accepted_per_s"].tolist()
    return [
        demand(stage, base[prefix + stage].tolist(), accepted, at_most.get(stage))
        for stage in stages
        if stage not in APART
    ]


def processes(parameters: Parameters) -> dict[str, int]:
    """Return how many processes a stage has, where each of them runs Python, and so can use one core at a time."""
    known = {
        "ingest": parameters.ingest_workers,
        "main-publisher": 1,
        "cluster-publisher": parameters.clusters,
        "subscriber": parameters.clusters * parameters.subscribers,
        "receivers": 1,
    }
    # A faster load shares its plan among several.
    return known | ({"load": 1} if parameters.rate_per_s < PER_PROCESS_S else {})


def _reached(directory: Path, row: Mapping[Any, Any]) -> float:
    """Return the share that an intervention reached, NaN for a run as it is. Raises RunFileError."""
    if row["stage"] == NONE:
        return math.nan
    run_dir = directory / "runs" / str(row["run"])
    slowed = run_files.manifest(run_dir).get("slowed")
    reached = slowed.get("reached") if isinstance(slowed, Mapping) else None
    if not isinstance(reached, int | float):
        raise run_files.damaged(run_dir / "manifest.json", "lacks `slowed.reached`")
    return float(reached)


def _cores(directory: Path, table: pd.DataFrame) -> int:
    for run in table["run"] if len(table) else ():
        cores = run_files.manifest(directory / "runs" / str(run)).get("cores")
        if isinstance(cores, int) and cores > 0:
            return cores
    return 1


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.3g}{NBSP}µs" if seconds < 1e-3 else f"{seconds * 1e3:,.3g}{NBSP}ms"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}{NBSP}times"


def _span(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"
