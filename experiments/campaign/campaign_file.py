"""`campaign.json`: its type and its reader, for the sweep, the steps, the report and the comparison alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from experiments import files, run_files
from experiments.campaign.design import Design, Planned, is_doubled
from experiments.stats.capacity import FEWEST_PROBES, MOST_PROBES

NAME = "campaign.json"
MISSING_REMEDY = (
    "give the directory of a campaign, such as reports/reference/capacity, or make one with: emostream sweep DESIGN"
)
REMEDY = (
    "restore it from git or a copy, or sweep again with another --campaign NAME; the runs beside it stay as they are"
)

RunName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
"""The name of a run's directory: nothing that leads out of the campaign's."""


class Finished(msgspec.Struct, frozen=True):
    """A run that was carried out, and its verdict; an `unsteady` one is not `valid`, and `reasons` has the change."""

    index: int
    run: RunName
    block: int
    level: str
    factors: dict[str, Any]
    started: str
    ended: str
    valid: bool
    passed: bool
    reasons: list[str]
    unsteady: bool = False


class Abandoned(msgspec.Struct, frozen=True):
    """A run that started and left no verdict; `failed` is false where it was cut off from outside."""

    index: int
    run: RunName
    why: str
    failed: bool


class Underway(msgspec.Struct, frozen=True):
    """The run that is being carried out now."""

    index: int
    run: RunName
    started: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What `campaign.json` holds."""

    campaign: str
    design: Design
    design_sha256: str
    design_path: str = ""
    started: str
    ended: str | None = None
    order: list[Planned]
    runs: list[Finished]
    abandoned: list[Abandoned] = []
    underway: Underway | None = None

    @property
    def searches(self) -> bool:
        """Whether the campaign searches for a capacity."""
        return self.design.search is not None

    @property
    def own(self) -> State:
        """The campaign without the probes of a search's footprint, which are of a chain beside a slower instrument."""
        return self.part(doubled=False) if self.searches else self

    def part(self, *, doubled: bool) -> State:
        """Return the search with the probes of the footprint alone, or without them."""
        return msgspec.structs.replace(
            self,
            order=[run for run in self.order if is_doubled(run.factors) == doubled],
            runs=[run for run in self.runs if is_doubled(run.factors) == doubled],
        )


def exists(directory: Path) -> bool:
    """Return whether `directory` has a campaign.json, readable or not."""
    return (directory / NAME).exists()


def read(directory: Path) -> State:
    """Return what is known of the campaign in `directory`. Raises run_files.RunFileError as run_files.decoded does."""
    path = directory / NAME
    state = run_files.decoded(path, State, REMEDY if path.exists() else MISSING_REMEDY, _upgraded)
    if fault := _contradiction(state):
        raise run_files.damaged(path, f"contradicts itself: {fault}", REMEDY)
    return state


def _upgraded(content: Any) -> Any:
    """Return the content of a campaign.json with a search by ramp and bisection, as 2026-11 had it, in today's form.

    Its probes are kept. `placement` says that they were not placed at random: the report claims less for them.
    """
    match content:
        case {"design": {"search": {"factor": factor, "start": start, "growth": _, "most": most, "resolution": _}}}:
            runs = content.get("runs")
            runs = runs if isinstance(runs, list) else []
            loads = [
                load
                for run in runs
                if isinstance(run, dict) and isinstance(load := (run.get("factors") or {}).get(factor), int | float)
            ]
            search = {
                "factor": factor,
                "least": min([start, *loads]),
                "most": most,
                "probes": min(max(len(runs), FEWEST_PROBES), MOST_PROBES),
                "placement": "ramp",
            }
            known = content["design"]["search"].keys() - {"factor", "start", "growth", "most", "resolution"}
            search |= {name: content["design"]["search"][name] for name in known}
            return {**content, "design": {**content["design"], "search": search}}
    return content


def _contradiction(state: State) -> str | None:
    """Return what cannot be in one campaign: a run twice, or one that the order does not have."""
    levels = {run.index: run.level for run in state.order}
    names: set[str] = set()
    for run in state.runs:
        if run.run in names:
            return f"`runs` has {run.run} twice"
        names.add(run.run)
        if run.index not in levels:
            return f"run {run.run} has index {run.index}, which `order` does not have"
        if levels[run.index] != run.level:
            return f"run {run.run} has level {run.level!r}, and `order` has {levels[run.index]!r} at index {run.index}"
    return None


def write(directory: Path, state: State) -> None:
    """Replace campaign.json as a whole. Raises EmoStreamError naming the path if it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(state), indent=1).decode()
    files.write_text(directory / NAME, text + "\n")
