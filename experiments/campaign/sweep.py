"""The sweep: carries out a design run by run, one papermill execution for each; resumes where it was cut off."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from experiments import files, run_files
from experiments.campaign import design_file
from experiments.campaign.design import Design, Planned
from experiments.campaign.report import page
from experiments.campaign.state import Campaign
from experiments.machine import machine_lock
from experiments.parameters import checked
from experiments.progress import Progress
from experiments.run import measure, notebook
from pipeline.errors import EmoStreamError

# The start of a notebook's kernel.
KERNEL_S = 8.0


@dataclass(frozen=True)
class Outcome:
    """The result of a sweep: its report's path, and how many runs are finished, invalid, unsteady, missed and
    unfinished.
    """

    page: Path
    finished: int
    invalid: int
    unsteady: int
    missed: int
    unfinished: int

    @property
    def status(self) -> int:
        """The exit status: 0 if every run is valid and met its objectives, 3 if one missed some, 4 if some level
        has no valid run.

        A search must miss its objectives somewhere: it gets 0 if it ended and has at least one valid run.
        """
        if self.unfinished:
            return 4
        return 3 if self.missed else 0


def sweep(design_path: Path, reports: Path, name: str = "", until_s: float = math.inf) -> Outcome:
    """Carry out the design at `design_path`; return the outcome with the report's path.

    No run begins that should end after `until_s` (of time.monotonic), but the campaign's first. Finished runs of an
    earlier, cut-off sweep are kept. Raises SettingError for a wrong design, RunFileError for a damaged campaign.json,
    EmoStreamError if another measurement runs on this machine, a run failed twice or the disk is full; finished runs
    stay.
    """
    design_file.load(design_path)
    with machine_lock.alone(f"The sweep of {design_path}"):
        campaign = Campaign.open(design_path, reports, name)
        if due := campaign.pending():
            search = campaign.state.design.search
            # Only the next probe of a search is known. INVALID and UNSTEADY runs come on top.
            runs = max(search.probes + search.footprint - len(campaign.state.runs), 1) if search else 1
            with Progress(sum(expected_s(run) for run in due) * runs) as progress:
                while pending := campaign.pending():
                    if campaign.state.runs and time.monotonic() + expected_s(pending[0]) > until_s:
                        break
                    _carry_out(campaign, pending[0], progress)
        return outcome(campaign)


def outcome(campaign: Campaign) -> Outcome:
    """Write the report of the finished runs; return how the campaign stands."""
    state = campaign.state
    path = page.write(campaign.directory)
    searching = state.searches
    valid = [run for run in state.own.runs if run.valid]
    settled = {run.index for run in valid} if not searching else {run.index for run in state.runs}
    return Outcome(
        page=path,
        finished=len(state.runs),
        invalid=sum(not (run.valid or run.unsteady) for run in state.runs),
        unsteady=sum(run.unsteady for run in state.runs),
        missed=0 if searching else sum(not run.passed for run in valid),
        # A search without a valid probe has found nothing, however it ended.
        unfinished=sum(run.index not in settled for run in state.order) + (not valid if searching else not state.order),
    )


def expected_s(run: Planned) -> float:
    """Return how long a run should take, in seconds."""
    return KERNEL_S + measure.expected_s(checked(run.parameters))


def _carry_out(campaign: Campaign, run: Planned, progress: Progress) -> None:
    run_dir = campaign.begin(run)
    progress.begin(f"run {run.index + 1}/{len(campaign.state.order)}: {run.level}", expected_s(run))
    try:
        execute(campaign.state.design, run, run_dir)
        finished = campaign.finish(run, run_dir)
    except EmoStreamError as error:
        # Only the text of an error in the notebook gets here. A full disk does not count as a failure of the run: it is
        # still due when the sweep is started again.
        full = files.DISK_FULL in str(error)
        campaign.abandon(str(error), failed=not full)
        if full:
            raise
        if not any(planned.index == run.index for planned in campaign.pending()):
            raise EmoStreamError(
                f"run {run.index + 1} ({run.level}) failed twice: {error}. The finished runs are kept in "
                f"{campaign.directory}"
            ) from error
        progress.note(f"{run_dir.name}  {run.level}: failed, will be repeated: {error}")
        return
    words = run_files.outcome(valid=finished.valid, unsteady=finished.unsteady, passed=finished.passed)
    progress.note(f"{finished.run}  block {finished.block}  {finished.level}: {words}")
    for reason in finished.reasons:
        progress.note(f"  {reason}")


def execute(design: Design, run: Planned, run_dir: Path) -> Path:
    """Carry out one run in a papermill execution of its design's notebook; its progress goes to `run.log`.

    Raises EmoStreamError if the run failed, or a file could not be written.
    """
    given = {name: str(value) for name, value in run.parameters.items()}
    path = run_dir / "run.log"
    try:
        with path.open("w", encoding="utf-8") as log:
            return notebook.execute(design_file.notebook_path(design), given, run_dir, log)
    except OSError as error:
        raise files.unwritten(error.filename or path, error) from error
