"""A campaign in three steps, for a scheduler that starts the runs itself: plan, carry out each, reduce.

The heavy imports are inside the steps: a scheduler reads this module often, for the names of the designs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import repository, run_files, text_files
from experiments.repository import DESIGNS
from pipeline.errors import EmoStreamError, SettingError
from pipeline.shell import emostream

if TYPE_CHECKING:
    from experiments.campaign.state import Campaign

# The pool of one slot that keeps runs apart.
POOL = "emostream"
REPORTS_VARIABLE = "EMOSTREAM_REPORTS"
"""Names, in Airflow's processes, the directory of the reports."""
REPORTS = Path(os.environ.get(REPORTS_VARIABLE, repository.REPORTS))
_LEVELS = re.compile(r"^levels\s*:", re.MULTILINE)
# A campaign's name is a folder's, and leads nowhere else; an empty one stands for the design's.
CAMPAIGN = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,80})?$"


def designs() -> list[str]:
    """Return the names of the designs whose runs are all known beforehand: those with levels.

    A search is left out, because each of its runs follows from the one before. So is a file that cannot be read as
    text, which `unreadable` names; what else is wrong with a design, its run says.
    """
    return sorted(name for name, text in _texts().items() if isinstance(text, str) and _LEVELS.search(text))


def unreadable() -> list[str]:
    """Return an error for each file among the designs that is not text in UTF-8."""
    return [str(text) for _, text in sorted(_texts().items()) if not isinstance(text, str)]


def _texts() -> dict[str, str | Exception]:
    """Return each design's text by its name, or the error with which it was read."""
    found: dict[str, str | Exception] = {}
    for path in DESIGNS.glob("*.yaml"):
        try:
            found[path.stem] = text_files.read(path, "design")
        except (OSError, SettingError) as error:
            found[path.stem] = error
    return found


def planned(design: str, campaign: str = "") -> list[dict[str, Any]]:
    """Open `campaign`, or resume it where it was cut off; return each run that is due, in the order to run.

    An entry has `index`, `title`, `input_nb` and `parameters`, whose names are checked against the notebook's own.
    Raises SettingError for a wrong design or campaign, RunFileError for a damaged campaign.json, EmoStreamError while
    another measurement runs.
    """
    from experiments.campaign import design_file
    from experiments.run import notebook

    with _opened(design, campaign) as opened:
        if opened.state.design.search is not None:
            raise SettingError(
                f"design {design} is a search, whose runs follow from one another and cannot be planned ahead: use "
                f"`{emostream('sweep', f'experiments/designs/{design}.yaml')}`"
            )
        source = design_file.notebook_path(opened.state.design)
        return [
            {
                "index": run.index,
                "title": f"{run.index + 1}: {run.level} (block {run.block})",
                "input_nb": str(source),
                "parameters": notebook.checked(source, {name: str(value) for name, value in run.parameters.items()}),
            }
            for run in opened.pending()
        ]


@contextmanager
def carried_out(design: str, campaign: str, index: int) -> Iterator[Path]:
    """Yield the new directory of run `index`, for the notebook's execution; then record its result in the campaign.

    Papermill executes notebooks with this interpreter from then on, whatever kernels the user has. The machine is
    locked meanwhile. A run with a verdict is finished even if an error came after it; one without is abandoned, and the
    error is raised again. Raises EmoStreamError if the run is not due.
    """
    from experiments.campaign import design_file
    from experiments.run import notebook

    notebook.papermill_with_own_kernel()
    with _opened(design, campaign) as opened:
        run = next((run for run in opened.pending() if run.index == index), None)
        if run is None:
            raise EmoStreamError(
                f"run {index + 1} of {opened.directory} is not due: it is finished, or failed too often; to carry out "
                "the runs that are due, trigger the sweep again"
            )
        run_dir = opened.begin(run)
        try:
            yield run_dir
        except BaseException as error:
            if not (run_dir / "verdict.json").exists():
                # An interrupt, in the notebook or outside of it, does not count as a failure of the run.
                interrupted = "KeyboardInterrupt" in (getattr(error, "ename", ""), type(error).__name__)
                opened.abandon(_words(error), failed=isinstance(error, Exception) and not interrupted)
                raise
            opened.finish(run, run_dir)
            raise
        notebook.note_source(design_file.notebook_path(opened.state.design), run_dir)
        opened.finish(run, run_dir)


def reduced(design: str, campaign: str = "") -> Path:
    """Write the report of the finished runs; return its path.

    Raises EmoStreamError, after the report is written, if a run has no valid verdict or missed an objective: the cases
    in which `python -m experiments sweep` ends with a status other than 0.
    """
    from experiments.campaign import sweep

    with _opened(design, campaign) as opened:
        outcome = sweep.outcome(opened)
        if outcome.status:
            raise EmoStreamError("\n".join([f"{outcome.page} is written, but:", *_complaints(opened)]))
        return outcome.page


@contextmanager
def _opened(design: str, campaign: str) -> Iterator[Campaign]:
    """Yield the campaign with the machine locked: opening it marks a run that is under way as cut off."""
    from experiments.campaign.state import Campaign
    from experiments.machine import machine_lock

    if not re.fullmatch(CAMPAIGN, campaign):
        raise SettingError(f"campaign is {campaign!r}: give letters, digits, '.', '_' and '-', such as 'first-try'")
    with machine_lock.alone(f"The sweep of {design} by Airflow"):
        yield Campaign.open(DESIGNS / f"{design}.yaml", REPORTS, campaign)


def _words(error: BaseException) -> str:
    """An error, of papermill or another, in one line."""
    if hasattr(error, "ename"):
        return f"{error.ename}: {error.evalue}"  # type: ignore[attr-defined]
    return f"{type(error).__name__}: {error}"


def _complaints(campaign: Campaign) -> Iterator[str]:
    """Yield a line for each run of the campaign without a valid verdict, or that missed an objective."""
    state = campaign.state
    for run in state.order:
        tries = [finished for finished in state.runs if finished.index == run.index]
        valid = next((finished for finished in tries if finished.valid), None)
        if valid is None:
            invalid = "; ".join(
                f"{one.run} is {'UNSTEADY' if one.unsteady else 'INVALID'}: {' '.join(one.reasons)}" for one in tries
            )
            failed = "; ".join(f"{left.run} failed: {left.why}" for left in state.abandoned if left.index == run.index)
            yield f"run {run.index + 1} ({run.level}) has no valid verdict: {invalid or failed or 'it did not start'}"
        elif not valid.passed:
            verdict = run_files.verdict(campaign.directory / "runs" / valid.run)
            missed = (
                f"{slo.name or slo.key}: {_seen(slo)}, limit {slo.limit:g}" for slo in verdict.slos if not slo.passed
            )
            yield f"run {run.index + 1} ({run.level}), {valid.run}, missed: {'; '.join(missed)}"


def _seen(slo: run_files.Objective) -> str:
    return "not measured" if slo.figure is None else f"{slo.measured:g}"
