"""A campaign: a design being carried out in a directory that survives a kill. `campaign.json` holds its state.

The file is replaced as a whole after each step, so that it is never half written. What it lists under `runs` is
finished. A run that was under way when the process died is listed as abandoned at the next start, and repeated under
a new id.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from experiments import files, run_files
from experiments.campaign import campaign_file, design_file
from experiments.campaign.campaign_file import Abandoned, Finished, State, Underway
from experiments.campaign.design import DOUBLED, Design, Planned, SearchSpec, order, planned
from experiments.repository import ROOT
from experiments.run import notebook
from experiments.stats.capacity import Probe, Search, next_load
from pipeline.errors import SettingError

# A run that is INVALID or UNSTEADY, or fails, is tried once more; machines have bad moments.
TRIES = 2


class Campaign:
    """One campaign's directory, for one process at a time: a sweep holds the machine's lock meanwhile."""

    def __init__(self, directory: Path, state: State) -> None:
        self.directory = directory
        self._state = state

    @classmethod
    def open(cls, design_path: Path, reports: Path, name: str = "") -> Campaign:
        """Start the campaign `name` (default: the design's) below `reports`, or resume it where it exists.

        Raises SettingError if the design is wrong, or is not the one that the campaign was started with, EmoStreamError
        if its directory cannot be made, RunFileError for a damaged campaign.json.
        """
        design = design_file.load(design_path)
        directory = reports / (name or design.name)
        if not campaign_file.exists(directory):
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
                    runs=[],
                ),
            )
            campaign._save()
            return campaign
        state = campaign_file.read(directory)
        if state.design_sha256 != design.sha256:
            raise SettingError(
                f"campaign {directory} was started with another design than {design_path} is now: give a new name with "
                "--campaign, or restore the design; the finished runs stay as they are"
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
        """Return the runs still to make, in order; in a search only the next one is known."""
        if self._state.design.search is not None:
            return self._searching(self._state.design)
        return [run for run in self._state.order if self._wants(run.index)]

    def begin(self, run: Planned) -> Path:
        """Record that `run` is under way; return its new directory."""
        if run.index >= len(self._state.order):
            self._set(order=[*self._state.order, run])
        run_dir = notebook.new_run(self.directory)
        self._set(underway=Underway(run.index, run_dir.name, _now()), ended=None)
        return run_dir

    def finish(self, run: Planned, run_dir: Path) -> Finished:
        """Record the verdict that `run` left in its directory. Raises RunFileError if it is missing or damaged."""
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
        """Record that the run under way left no verdict; it will be repeated."""
        underway = self._state.underway
        if underway is not None:
            ended = Abandoned(underway.index, underway.run, why, failed)
            self._set(abandoned=[*self._state.abandoned, ended], underway=None)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run."""
        return not self.pending()

    def _wants(self, index: int) -> bool:
        tries = [run for run in self._state.runs if run.index == index]
        failed = sum(run.failed for run in self._state.abandoned if run.index == index)
        return not any(run.valid for run in tries) and len(tries) + failed < TRIES

    def _searching(self, design: Design) -> list[Planned]:
        assert design.search is not None
        # Each probe follows from those before it; only failures of the probe that is due now count.
        index = len(self._state.runs)
        if sum(run.failed for run in self._state.abandoned if run.index == index) >= TRIES:
            return []
        for doubled in self._turns(design.search):
            search = design.search_plan(doubled=doubled)
            load = next_load(search, probes(search, self._state.part(doubled=doubled).runs))
            if load is not None:
                factors = {search.factor: load, **(DOUBLED if doubled else {})}
                return [planned(design, index, index + 1, factors)]
        return []

    def _turns(self, search: SearchSpec) -> tuple[bool, ...]:
        """Return whether the next probe is one for the footprint, and then the other kind: both end together."""
        if not search.footprint:
            return (False,)
        own, doubled = (len(self._state.part(doubled=kind).runs) for kind in (False, True))
        behind = doubled * search.probes < own * search.footprint
        return behind, not behind

    def _set(self, **changes: Any) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
        self._save()

    def _save(self) -> None:
        campaign_file.write(self.directory, self._state)


def judge_again(directory: Path) -> None:
    """Update each finished run in the campaign.json of `directory` from its verdict.json.

    Raises RunFileError naming the file that cannot be read; campaign.json is then unchanged.
    """
    state = campaign_file.read(directory)
    runs = [msgspec.structs.replace(run, **_judged(directory / "runs" / run.run)) for run in state.runs]
    if runs != state.runs:  # a campaign of an earlier form is not rewritten for nothing
        campaign_file.write(directory, msgspec.structs.replace(state, runs=runs))


def probes(search: Search, runs: Sequence[Finished]) -> list[Probe]:
    """Return the finished runs of a search as probes."""
    return [
        Probe(float(run.factors[search.factor]), run.passed, run.valid, "; ".join(run.reasons), run.unsteady)
        for run in runs
    ]


def _judged(run_dir: Path) -> dict[str, Any]:
    """Return `valid, unsteady, passed, reasons` of the verdict in `run_dir`, as Finished has them."""
    verdict = run_files.verdict(run_dir)
    return {name: getattr(verdict, name) for name in ("valid", "unsteady", "passed", "reasons")}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
