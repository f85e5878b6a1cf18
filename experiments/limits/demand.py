"""The demand of a load, after Theodolite: the least cores, of those tried, with which the chain carries it.

Source: S. Henning and W. Hasselbring, A configurable method for benchmarking scalability of cloud-native applications,
Empirical Software Engineering 27, 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from experiments import files
from experiments.campaign import campaign_file
from experiments.campaign.design import Design, with_blocks
from experiments.campaign.report import read as read_back
from experiments.campaign.report.estimates import believed
from experiments.limits.plan import with_load
from experiments.report import pages
from experiments.report.format import rounded, seconds
from pipeline.errors import EmoStreamError, SettingError
from pipeline.shell import command

FACTOR = "chain_cores"
NAME = "demand.html"
OF_CHAIN = (
    *("kafka", "spark", "ingest", "registry", "main-publisher", "cluster-publisher", "subscriber", "supervisor"),
)


@dataclass(frozen=True)
class Tried:
    """A number of cores that was tried: its valid runs, how many met every objective, the median excess over them (s),
    and the mean cores that the chain used.
    """

    cores: float
    runs: int
    passed: int
    excess_s: float
    used: float

    @property
    def carries(self) -> bool:
        """Whether every run met every objective."""
        return self.runs > 0 and self.passed == self.runs


def planned(design: Design, *, load: float | None, blocks: int | None) -> Design:
    """Return `design` with the load and the number of blocks that are given; None keeps the design's.

    Raises SettingError naming the option, or for a design that does not vary the chain's cores alone.
    """
    if design.factors != (FACTOR,) or not all(level[FACTOR] for level in design.levels):
        raise SettingError(
            f"design {design.name} does not vary {FACTOR} alone, above 0: see experiments/designs/demand.yaml"
        )
    if blocks is not None:
        if blocks < 1:
            raise SettingError(f"--blocks is {blocks}: give a whole number from 1")
        design = msgspec.structs.replace(with_blocks(design, blocks), intervals=False)
    return with_load(design, load)


def tried(runs: pd.DataFrame) -> list[Tried]:
    """Return each number of cores of the finished `runs` (campaign.report.read), largest first."""
    rows = []
    valid = believed(runs) if len(runs) else runs
    for cores in valid[f"factor_{FACTOR}"].unique().tolist() if len(valid) else ():
        of_level = valid[valid[f"factor_{FACTOR}"] == cores]
        shares = [f"cpu_share_{stage}" for stage in OF_CHAIN if f"cpu_share_{stage}" in of_level]
        rows.append(
            Tried(
                float(cores),
                len(of_level),
                int(of_level["passed"].astype(bool).sum()),
                float(of_level["e2e_excess_p50_s"].median()),
                float(of_level[shares].sum(axis=1).mean()),
            )
        )
    return sorted(rows, key=lambda row: -row.cores)


def least(rows: list[Tried]) -> Tried | None:
    """Return the least cores with which every run passed, with them and with all more that were tried; None if the
    most that were tried do not carry the load.
    """
    found = None
    for row in rows:
        if not row.carries:
            break
        found = row
    return found


def sentence(rows: list[Tried], load_per_s: float) -> str:
    """Return what the runs support. Raises EmoStreamError if no run was valid."""
    load = f"{rounded(load_per_s)} reactions per second"
    if not rows:
        raise EmoStreamError(f"no run was valid at {load}: see the reasons in campaign.json, and start it again")
    found = least(rows)
    if found is None:
        most = rows[0]
        return (
            f"None of the numbers of cores that were tried carries {load}: with {most.cores:g}, the most, "
            f"{most.passed} of {most.runs} runs met every objective."
        )
    below = next((row for row in rows if row.cores < found.cores), None)
    text = (
        f"Of the numbers of cores that were tried, {found.cores:g} is the least with which the chain carried {load} in "
        f"every run ({found.passed} of {found.runs})"
    )
    if below is None:
        return f"{text}; fewer were not tried. Generator and receivers had CPU besides."
    return f"{text}; with {below.cores:g}, {below.passed} of {below.runs} did. Generator and receivers had CPU besides."


def write(directory: Path) -> Path:
    """Write `demand.html`, `demand.json` and `demand.csv` of the campaign in `directory`; return the page's path.

    Raises RunFileError for a damaged file, EmoStreamError if no run was valid.
    """
    state = campaign_file.read(directory)
    load = float(state.design.parameters["rate_per_s"])
    rows = tried(read_back.runs(directory))
    text = sentence(rows, load)
    table: list[dict[str, Any]] = [
        {"cores": row.cores, "runs": row.runs, "passed": row.passed, "excess_p50_s": row.excess_s, "used": row.used}
        for row in rows
    ]
    files.to_csv(pd.DataFrame(table), directory / "demand.csv")
    found = least(rows)
    result = {"load_per_s": load, "least_cores": found.cores if found else None, "finding": text, "tried": table}
    pages.write_json(directory / "demand.json", result)
    page = pages.render(
        "demand.html",
        title="How many cores the load needs",
        load=rounded(load),
        started=state.started,
        finding=text,
        rows=[{**each, "excess": seconds(each["excess_p50_s"])} for each in table],
        design=state.design,
        command=command("experiments", "limits", "--demand", "--campaign", state.campaign),
    )
    files.write_text(directory / NAME, page)
    return directory / NAME
