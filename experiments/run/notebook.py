"""Execute a notebook as a function, by papermill: parameters in, a run directory out."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from experiments import files
from experiments.parameters import PARAMETERS, Parameters
from pipeline import errors
from pipeline.errors import EmoStreamError, SettingError

# Parameters that the runner sets: where a run is written, not what it measures.
RUNNERS_OWN = ("run_dir",)


def papermill_with_own_kernel() -> ModuleType:
    """Return papermill, which from then on executes all notebooks of this process with this interpreter.

    It is not imported at the top: that takes seconds, and the kernels import this module too.
    """
    # Its store for Azure makes a folder in the user's home, or in the working directory of a user without a home.
    sys.modules.setdefault("azure.datalake.store", None)  # type: ignore[arg-type]
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines

    from experiments.run.kernel import LocalKernel

    class OwnKernelEngine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, *given: Any, **named: Any) -> Any:
            return super().execute_managed_notebook(*given, **{**named, "kernel_manager_class": LocalKernel})

    # The one that is used if none is named, as by Airflow's operator.
    papermill_engines.register(None, OwnKernelEngine)
    return papermill  # type: ignore[no-any-return]


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
    papermill = papermill_with_own_kernel()
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


def carry_out(notebook: Path, given: Mapping[str, str], campaign_dir: Path) -> Path:
    """Execute `notebook` in a new run directory below `campaign_dir`; return the path of the report it wrote.

    Before anything is written or started, raises SettingError for parameters that cannot work, and
    EmoStreamError naming the other measurement that runs on this machine. Then raises as `execute` does.
    """
    # Not at the top, as papermill.
    from experiments.run import machine_lock

    _check(notebook, given)
    with machine_lock.alone(f"A run of {notebook.name} into {campaign_dir}"):
        return execute(notebook, given, new_run(campaign_dir))


def _check(notebook: Path, given: Mapping[str, str]) -> None:
    """Raise SettingError if the notebook, given these parameters, would refuse them."""
    from experiments.run import measure

    values = checked(notebook, given)
    defaults = papermill_with_own_kernel().inspect_notebook(str(notebook))
    if set(PARAMETERS) <= set(defaults):
        for name in set(PARAMETERS) - set(values):
            values[name] = ast.literal_eval(defaults[name]["default"])
        # Paths are relative to the kernel's folder.
        with contextlib.chdir(_kernels_folder(notebook)):
            measure.check(Parameters(**{name: values[name] for name in PARAMETERS}))


def _kernels_folder(notebook: Path) -> Path:
    return notebook.resolve().parent.parent


def execute(notebook: Path, given: Mapping[str, str], run_dir: Path, stderr: TextIO | None = None) -> Path:
    """Execute `notebook` with the parameters `given`; return the path of the report it wrote.

    Its progress and warnings go to `stderr`, by default this process's. The executed notebook is saved as
    `executed.ipynb` even when a cell fails. Raises EmoStreamError with the failed cell's error, or naming the file that
    could not be written.
    """
    papermill = papermill_with_own_kernel()
    from papermill.exceptions import PapermillExecutionError

    parameters = checked(notebook, given)
    executed = run_dir / "executed.ipynb"
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            {**parameters, "run_dir": str(run_dir)},
            cwd=str(_kernels_folder(notebook)),
            progress_bar=False,
            stderr_file=stderr or sys.stderr,
            kernel_name="python3",
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
    about = json.loads(record.read_text(encoding="utf-8"))
    about["notebook_sha256"] = hashlib.sha256(notebook.read_bytes()).hexdigest()
    files.write_text(record, json.dumps(about, indent=1) + "\n")
