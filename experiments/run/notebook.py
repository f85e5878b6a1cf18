"""Execute a notebook as a function, by papermill: parameters in, a run directory out."""

from __future__ import annotations

import ast
import json
import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from experiments import files, parameters, progress, text_files
from experiments.repository import NOTEBOOKS, ROOT
from pipeline import errors
from pipeline.errors import EmoStreamError, SettingError

# Parameters that the runner sets: where a run is written, not what it measures.
RUNNERS_OWN = ("run_dir",)
RULE = "a parameter is a whole number, a number, true or false, or text: its default in the notebook says which"
KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
# As in JSON: no leading zeros, no separators, no other digits.
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
SHOWN_MAX = 80
UNUSED = ("rfc3987_syntax", "gcsfs", "boto3", "azure.storage.blob", "azure.datalake.store")
"""What papermill imports if it is there: a grammar for checking addresses, and stores other than files. They take two
thirds of its time, and the last one makes a folder in the user's home, or in the working directory.
"""


def leave_out_unused() -> None:
    """Let no module of this process import what papermill would import and nobody here uses."""
    for module in UNUSED:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]


def papermill_with_own_kernel() -> ModuleType:
    """Return papermill, which from then on executes all notebooks of this process with this interpreter.

    It is not imported at the top: that takes a second, and the kernels import this module too.
    """
    leave_out_unused()
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
    """Return `given` as values of the kinds of the notebook's own defaults, by the RULE for parameters.

    Raises SettingError naming the notebook, the parameter, the value and the remedy: papermill itself would add an
    unknown name and run with the default.
    """
    known = _defaults(notebook) if given else {}
    return {name: _value(notebook, known, name, text) for name, text in given.items()}


def prepared(notebook: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """Return `given` as `checked` does; refuse a run that cannot be measured, before anything starts.

    Raises SettingError as `checked` and `rehearse` do. A notebook with other parameters than those of a run has rules
    of its own, which are not known here.
    """
    values = checked(notebook, given)
    known = _defaults(notebook)
    if set(parameters.PARAMETERS) <= set(known):
        # Not at the top: it takes seconds to import, and the kernels import this module too.
        from experiments.run.rehearsal import rehearse

        defaults = {name: _literal(default) for name, default in known.items()}
        run = {**{name: value for name, value in defaults.items() if type(value) in KINDS}, **values}
        of_a_run = {name: value for name, value in run.items() if name in parameters.PARAMETERS}
        rehearse(parameters.checked(of_a_run), _working_directory(notebook))
    return values


def _working_directory(notebook: Path) -> Path:
    folder = notebook.resolve().parent
    return ROOT if folder == NOTEBOOKS else folder.parent


def _defaults(notebook: Path) -> dict[str, ast.expr | None]:
    """Return the default of each parameter, from the assignments in the notebook's cell tagged `parameters`.

    A name that has only an annotation has None.
    """
    try:
        cells = json.loads(text_files.read(notebook, "notebook"))["cells"]
        tagged = [cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
        source = "".join(tagged[0]) if tagged else ""
    except OSError as error:
        raise SettingError(
            f"notebook {notebook} cannot be read ({error.strerror}): give the path of one with --notebook"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingError(
            f"notebook {notebook} is not a Jupyter notebook, or damaged: restore it, or save it in Jupyter"
        ) from error
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise SettingError(
            f"notebook {notebook}, the cell tagged `parameters`, line {error.lineno} is not Python: keep assignments "
            "of plain values there"
        ) from error
    known: dict[str, ast.expr | None] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            known |= {target.id: statement.value for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            known[statement.target.id] = statement.value
    return {name: default for name, default in known.items() if name not in RUNNERS_OWN}


def _literal(default: ast.expr | None) -> Any:
    """Return the value of a default, or the default itself if it is not a literal."""
    try:
        return None if default is None else ast.literal_eval(default)
    except (ValueError, TypeError):
        return default


def _value(notebook: Path, known: Mapping[str, ast.expr | None], name: str, text: str) -> Any:
    if name not in known:
        names = f"use one of {', '.join(sorted(known))}" if known else "its cell tagged `parameters` assigns none"
        raise SettingError(f"notebook {notebook.name} has no parameter {name!r}: {names}")
    node = known[name]
    default = _literal(node)
    if type(default) not in KINDS:
        has = "no default" if node is None else f"the default {_short(ast.unparse(node))}"
        raise SettingError(
            f"parameter {name} is {_short(repr(text))}, and has {has} in {notebook.name}: {RULE}; give it such a "
            "default there"
        )
    if (value := _cast(text, type(default))) is None:
        raise SettingError(
            f"parameter {name} is {_short(repr(text))}: give {KINDS[type(default)]}, such as {default!r}"
        )
    # In any notebook, a parameter with the name and kind of a run's has its bounds.
    alike = name in parameters.PARAMETERS and isinstance(value, type(getattr(parameters.Parameters, name)))
    return parameters.bounded(name, value) if alike else value


def _cast(text: str, kind: type) -> Any:
    """Return `text` as a value of `kind`, or None."""
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    number = _NUMBER.fullmatch(text) if len(text) <= SHOWN_MAX else None
    if number is None:
        return None
    if kind is int:
        return int(text) if number[2] is number[3] is None else None
    return float(text) if math.isfinite(float(text)) else None


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def carry_out(notebook: Path, given: Mapping[str, str], campaign_dir: Path) -> Path:
    """Execute `notebook` in a new run directory below `campaign_dir`; return the path of the report it wrote.

    Before anything is written or started, raises SettingError for parameters that cannot work, and EmoStreamError that
    names the other measurement on this machine. Then raises as `execute` does.
    """
    # Not at the top, as papermill.
    from experiments.machine import machine_lock
    from experiments.run import chain

    if attach := prepared(notebook, given).get("attach"):
        chain.attached(_working_directory(notebook) / str(attach))
    with machine_lock.alone(f"A run of {notebook.name} into {campaign_dir}"):
        return execute(notebook, given, new_run(campaign_dir))


def execute(notebook: Path, given: Mapping[str, str], run_dir: Path, stderr: TextIO | None = None) -> Path:
    """Execute `notebook` with the parameters `given`; return the path of the report it wrote.

    Its progress and warnings go to `stderr`, by default this process's. The executed notebook is saved as
    `executed.ipynb` even when a cell fails. Raises EmoStreamError with the failed cell's error, or naming the file that
    could not be written.
    """
    papermill = papermill_with_own_kernel()
    from papermill.exceptions import PapermillExecutionError

    values = prepared(notebook, given)
    executed = run_dir / "executed.ipynb"
    shown = stderr or sys.stderr
    progress.write(f"starting {notebook.name}", shown)
    try:
        with progress.shown_by(shown):
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                {**values, "run_dir": str(run_dir)},
                cwd=str(_working_directory(notebook)),
                progress_bar=False,
                stderr_file=shown,
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
    about["notebook_sha256"] = files.sha256(notebook)
    files.write_text(record, json.dumps(about, indent=1) + "\n")
