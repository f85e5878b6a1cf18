"""`duel.json`: what a duel is to run, in which order, and what is finished; it survives a kill.

The file is replaced as a whole after each run. A run that was cut off is not listed, and is made again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from experiments import files, run_files
from experiments.campaign.design import Design, Planned, order
from experiments.duel.sides import Side
from pipeline.errors import SettingError

NAME = "duel.json"
# A pair without a valid run of both sides is left out, and six pairs are what an interval needs.
TRIES = 3
REMEDY = "restore it from a copy, or remove the duel's folder and start again"
RunName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]


class Version(msgspec.Struct, frozen=True):
    """What a side is: as the command line named it, its parameters, and the state of its code."""

    text: str
    parameters: dict[str, str]
    code: dict[str, Any]


class Bout(msgspec.Struct, frozen=True):
    """One run to make: its index in the order, its side, block and level, and the design's parameters of it."""

    index: int
    side: Literal["A", "B"]
    block: int
    level: str
    factors: dict[str, Any]
    parameters: dict[str, Any]


class Finished(msgspec.Struct, frozen=True):
    """A run that was made: the bout's index, its directory below the side's `runs/`, and its verdict."""

    index: int
    run: RunName
    valid: bool
    passed: bool
    reasons: list[str]
    unsteady: bool = False


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What `duel.json` holds."""

    design: Design
    design_path: str
    versions: dict[str, Version]
    order: list[Bout]
    runs: list[Finished] = []

    def pending(self) -> list[Bout]:
        """Return the runs still to make: an INVALID or UNSTEADY one is made again, TRIES times in all."""
        tries: dict[int, list[Finished]] = {}
        for run in self.runs:
            tries.setdefault(run.index, []).append(run)
        return [
            bout
            for bout in self.order
            if not any(run.valid for run in tries.get(bout.index, ())) and len(tries.get(bout.index, ())) < TRIES
        ]


def bouts(design: Design) -> list[Bout]:
    """Return the runs of a duel in order: per block the levels shuffled, and per level A and B, shuffled, in turn.

    Both sides of a level in a block get the same parameters, the seed of the load among them.
    """
    rounds = [(run, side) for run in order(design) for side in _sides(design, run)]
    return [
        Bout(index, side, run.block, run.level, dict(run.factors), dict(run.parameters))
        for index, (run, side) in enumerate(rounds)
    ]


def _sides(design: Design, run: Planned) -> list[Literal["A", "B"]]:
    sides: list[Literal["A", "B"]] = ["A", "B"]
    random.Random(f"{design.seed}:sides:{run.block}:{run.level}").shuffle(sides)
    return sides


def opened(directory: Path, design: Design, design_path: Path, sides: Mapping[str, Side]) -> Match:
    """Return the duel in `directory` as far as it is, or a new one that is not yet written.

    Raises SettingError if the duel there is another one, RunFileError for a damaged duel.json.
    """
    versions = {name: Version(one.text, dict(one.parameters), one.code()) for name, one in sides.items()}
    path = directory / NAME
    if not path.exists():
        shown = os.path.relpath(design_path.resolve())
        return Match(design=design, design_path=shown, versions=versions, order=bouts(design))
    known = run_files.decoded(path, Match, REMEDY)
    if known.design.sha256 != design.sha256:
        raise SettingError(
            f"the duel in {directory} was started with another design or number of blocks: give a new name with "
            "--campaign, or restore the design"
        )
    for name, version in versions.items():
        if known.versions.get(name) != version:
            before = known.versions.get(name)
            raise SettingError(
                f"version {name} has changed since the duel in {directory} began ({_shown(before)} then, "
                f"{_shown(version)} now): give a new name with --campaign, or restore it"
            )
    return known


def write(directory: Path, match: Match) -> None:
    """Replace duel.json as a whole. Raises EmoStreamError naming the path if it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(match), indent=1).decode()
    files.write_text(directory / NAME, text + "\n")


def _shown(version: Version | None) -> str:
    if version is None:
        return "nothing"
    commit = str(version.code.get("commit"))[:12]
    return f"{version.text} at {commit}{' with changes' if version.code.get('dirty') else ''}"
