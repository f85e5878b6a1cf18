"""Execute a notebook as a function, by papermill: parameters in, a run directory out."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from jupyter_client.manager import AsyncKernelManager

from experiments import files, progress
from pipeline import errors
from pipeline.errors import EmoStreamError, SettingError

# Parameters that the runner sets: where a run is written, not what it measures.
RUNNERS_OWN = ("run_dir",)


class LocalKernel(AsyncKernelManager):
    """A kernel reached by Unix sockets: one on TCP prints a warning about eavesdropping into every notebook."""

    transport = "ipc"


def new_run(campaign_dir: Path) -> Path:
    """Return a new, empty run directory below `campaign_dir`, named by the time.

    Raises EmoStreamError naming it if it cannot be made.
    """
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        run_dir = campaign_dir / "runs" / f"{name}{suffix}"
        with files.writing(run_dir):
            try:
                run_dir.mkdir(parents=True)
            except FileExistsError:
                continue
        return run_dir
    raise EmoStreamError(f"{campaign_dir} holds a thousand runs of this second: remove some")


def checked(notebook: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """Return `given` cast to the types of the notebook's own defaults.

    Raises SettingError for a name that the notebook's `parameters` cell does not have, or a value of the wrong
    type: papermill itself would add the name and run with the default.
    """
    # Not at the top: it takes seconds to import, and the kernels import this module too.
    import papermill

    try:
        known = papermill.inspect_notebook(str(notebook))
    except FileNotFoundError as error:
        raise SettingError(f"notebook {notebook} does not exist: give the path of one with --notebook") from error
    result: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known or name in RUNNERS_OWN:
            names = ", ".join(sorted(set(known) - set(RUNNERS_OWN)))
            raise SettingError(f"notebook {notebook.name} has no parameter {name!r}: use one of {names}")
        default = ast.literal_eval(known[name]["default"])
        try:
            result[name] = type(default)(text) if not isinstance(default, bool) else _boolean(text)
        except ValueError as error:
            raise SettingError(
                f"parameter {name} is {text!r}: give {KINDS[type(default)]}, such as {default!r}"
            ) from error
    return result


KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def execute(notebook: Path, given: Mapping[str, str], run_dir: Path, stderr: TextIO | None = None) -> Path:
    """Execute `notebook` with the parameters `given`; return the path of the report it wrote.

    Its progress and warnings go to `stderr`, by default this process's. The executed notebook is saved as
    `executed.ipynb` even when a cell fails. Raises EmoStreamError with the failed cell's error, or naming the file that
    could not be written.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    parameters = checked(notebook, given)
    executed = run_dir / "executed.ipynb"
    shown = stderr or sys.stderr
    progress.write(f"starting {notebook.name}", shown)
    try:
        with progress.shown_by(shown):
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                {**parameters, "run_dir": str(run_dir)},
                cwd=str(notebook.resolve().parent.parent),
                progress_bar=False,
                stderr_file=shown,
                kernel_name="python3",
                kernel_manager_class=LocalKernel,
            )
    except PapermillExecutionError as error:
        # The class of an error that is raised on purpose says nothing to a reader; its message says all.
        kind = "" if hasattr(errors, error.ename) else f"{error.ename}: "
        raise EmoStreamError(f"{kind}{error.evalue} (the executed notebook: {executed})") from error
    except OSError as error:
        # A failed write, unlike a failed open, does not name its file; papermill writes no other.
        raise files.unwritten(error.filename or executed, error) from error
    note_source(notebook, run_dir)
    return run_dir / "report.html"


def note_source(notebook: Path, run_dir: Path) -> None:
    """Add the hash of the `notebook` that carried out a run to its manifest."""
    record = run_dir / "manifest.json"
    about = json.loads(record.read_text())
    about["notebook_sha256"] = hashlib.sha256(notebook.read_bytes()).hexdigest()
    files.write_text(record, json.dumps(about, indent=1) + "\n")
