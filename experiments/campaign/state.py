"""A campaign: a design being carried out in a directory that survives a kill. `campaign.json` is what is known.

It is replaced as a whole after each step, so that it is never half of anything: what it lists under `runs` is
finished, and a run that was under way when the process died is listed as abandoned at the next start and made again
under a new id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from experiments import files
from experiments.campaign import design_file
from experiments.campaign.design import Design, Planned, order, planned
from experiments.repository import ROOT
from experiments.run import notebook
from experiments.stats.capacity import Probe, Search, next_load
from pipeline.errors import EmoStreamError, SettingError

# A run that is INVALID or fails gets one more chance; machines have bad moments.
TRIES = 2


class Finished(msgspec.Struct, frozen=True):
    """A run that was carried out, and its verdict."""

    index: int
    run: str
    block: int
    level: str
    factors: dict[str, Any]
    started: str
    ended: str
    valid: bool
    passed: bool
    reasons: list[str]


class Abandoned(msgspec.Struct, frozen=True):
    """A run that was begun and left no verdict; `failed` tells an error of its own from being cut off."""

    index: int
    run: str
    why: str
    failed: bool


class Underway(msgspec.Struct, frozen=True):
    """The run that is being carried out now."""

    index: int
    run: str
    started: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What `campaign.json` holds."""

    campaign: str
    design: Design
    design_sha256: str
    design_path: str
    started: str
    ended: str | None = None
    order: list[Planned]
    runs: list[Finished] = []
    abandoned: list[Abandoned] = []
    underway: Underway | None = None


class Campaign:
    """One campaign's directory. Not for two processes at once: a sweep holds the machine's lock meanwhile."""

    def __init__(self, directory: Path, state: State) -> None:
        self.directory = directory
        self._state = state

    @classmethod
    def open(cls, design_path: Path, reports: Path, name: str = "") -> Campaign:
        """Begin the campaign `name` (default: the design's) below `reports`, or go on with the one that is there.

        Raises SettingError if the design is wrong, or is not the one that the campaign was begun with, EmoStreamError
        if its directory cannot be made.
        """
        design = design_file.load(design_path)
        directory = reports / (name or design.name)
        path = directory / "campaign.json"
        if not path.exists():
            with files.writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            campaign = cls(
                directory,
                State(
                    campaign=directory.name,
                    design=design,
                    design_sha256=design.sha256,
                    design_path=os.path.relpath(design_path.resolve(), ROOT),
                    started=_now(),
                    order=order(design) if design.levels else [],
                ),
            )
            campaign._save()
            return campaign
        state = _read(path)
        if state.design_sha256 != design.sha256:
            raise SettingError(
                f"campaign {directory} was begun with another design than {design_path} is now: give a new name with "
                "--campaign, or restore the design; its finished runs are left as they are"
            )
        campaign = cls(directory, state)
        if state.underway is not None:
            campaign.abandon("cut off: the process was killed or the machine stopped", failed=False)
        return campaign

    @property
    def state(self) -> State:
        """What is known of the campaign."""
        return self._state

    def pending(self) -> list[Planned]:
        """Return the runs still to make, in order; of a search only the next one is known."""
        if self._state.design.search is not None:
            return self._searching(self._state.design)
        return [run for run in self._state.order if self._wants(run.index)]

    def begin(self, run: Planned) -> Path:
        """Note that `run` is under way; return its new directory."""
        if run.index >= len(self._state.order):
            self._set(order=[*self._state.order, run])
        run_dir = notebook.new_run(self.directory)
        self._set(underway=Underway(run.index, run_dir.name, _now()), ended=None)
        return run_dir

    def finish(self, run: Planned, run_dir: Path) -> Finished:
        """Note the verdict that `run` left in its directory. Raises EmoStreamError if it left none."""
        judged = _judged(run_dir)
        underway = self._state.underway
        finished = Finished(
            index=run.index,
            run=run_dir.name,
            block=run.block,
            level=run.level,
            factors=run.factors,
            started=underway.started if underway and underway.run == run_dir.name else _now(),
            ended=_now(),
            **judged,
        )
        self._set(runs=[*self._state.runs, finished], underway=None)
        if not self.pending():
            self._set(ended=_now())
        return finished

    def abandon(self, why: str, *, failed: bool = True) -> None:
        """Note that the run under way came to nothing; it will be made again."""
        underway = self._state.underway
        if underway is not None:
            ended = Abandoned(underway.index, underway.run, why, failed)
            self._set(abandoned=[*self._state.abandoned, ended], underway=None)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run."""
        return not self.pending()

    def _wants(self, index: int) -> bool:
        ours = [run for run in self._state.runs if run.index == index]
        failed = sum(run.failed for run in self._state.abandoned if run.index == index)
        return not any(run.valid for run in ours) and len(ours) + failed < TRIES

    def _searching(self, design: Design) -> list[Planned]:
        assert design.search is not None
        # Each probe follows from those before it; what failed and was made again well is forgiven.
        index = len(self._state.runs)
        if sum(run.failed for run in self._state.abandoned if run.index == index) >= TRIES:
            return []
        search = Search(**msgspec.structs.asdict(design.search))
        load = next_load(search, probes(search, self._state.runs))
        if load is None:
            return []
        return [planned(design, index, index + 1, {design.search.factor: load})]

    def _set(self, **changes: Any) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
        self._save()

    def _save(self) -> None:
        text = msgspec.json.format(msgspec.json.encode(self._state), indent=1).decode()
        files.write_text(self.directory / "campaign.json", text + "\n")


def judge_anew(directory: Path) -> None:
    """Have the campaign in `directory` say of each finished run what its verdict.json says now.

    Raises EmoStreamError naming the file that cannot be read; campaign.json is then as it was.
    """
    campaign = Campaign(directory, _read(directory / "campaign.json"))
    runs = [msgspec.structs.replace(run, **_judged(directory / "runs" / run.run)) for run in campaign.state.runs]
    campaign._set(runs=runs)


def probes(search: Search, runs: Sequence[Finished]) -> list[Probe]:
    """Return the finished runs of a search as it needs them."""
    return [Probe(float(run.factors[search.factor]), run.passed, run.valid, "; ".join(run.reasons)) for run in runs]


def _read(path: Path) -> State:
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (OSError, msgspec.DecodeError) as error:
        raise EmoStreamError(
            f"{path} cannot be read ({error}): restore it, or begin a new campaign with --campaign NAME; the runs "
            "beside it are left as they are"
        ) from error


def _judged(run_dir: Path) -> dict[str, Any]:
    """Return what the verdict in `run_dir` says, as Finished has it: `valid, passed, reasons`."""
    path = run_dir / "verdict.json"
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
        return {
            "valid": verdict["verdict"] == "VALID",
            "passed": bool(verdict["passed"]),
            "reasons": list(verdict["reasons"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmoStreamError(f"{path} holds no verdict ({error!r}): the run did not get to its end") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
