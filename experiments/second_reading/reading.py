"""Read a run a second time: from its rows to every figure of its summary, by the SQL of this folder.

Nothing here comes from the first reading (experiments.analysis): where the two agree, two ways led to one figure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiments import files, run_files
from experiments.second_reading import functions
from pipeline.errors import EmoStreamError

SQL = resources.files("experiments.second_reading") / "sql"
FACTS = ("top_n", "cores", "steal_s", "work_s", "other_run", "clock_samples", "warm_up")
"""What the SQL reads of a manifest."""
OF_FORMS = ("request", "sent_as")
"""Columns that the plan of a closed loop lacks."""
# Nothing is fetched: a run may be read without a network.
_OFFLINE: Mapping[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

Figures = dict[str, float | str]
"""Figures by the key that they have in summary.json: NaN where nothing was measured, +inf for what never arrived.

The objectives, a table in summary.json, are `slos.<key>`; true is 1.
"""


class SecondReadingError(EmoStreamError):
    """A frame cannot be read: it is missing, lacks a column, or holds a value that is no number or text."""


def read(run_dir: Path) -> Figures:
    """Return the figures of the run in `run_dir`.

    Raises RunFileError naming a file that is missing, cut off or damaged, or a column that it lacks, and the remedy.
    """
    with opened(run_dir) as connection:
        return figures_of(connection)


def read_frames(
    frames: Mapping[str, pd.DataFrame], parameters: Mapping[str, Any], manifest: Mapping[str, Any]
) -> Figures:
    """Return the figures of a run whose frames are in memory. Raises SecondReadingError naming a frame."""
    with opened_frames(frames, parameters, manifest) as connection:
        return figures_of(connection)


def opened(run_dir: Path) -> duckdb.DuckDBPyConnection:
    """Return a database in memory with all tables of the run in `run_dir`. Raises RunFileError as `read` does."""
    manifest = run_files.manifest(run_dir)
    left = manifest.get("frames") or {}

    def fault(name: str, text: str) -> EmoStreamError:
        return run_files.damaged(run_dir / f"{name}.parquet", text)

    def table(name: str) -> pa.Table:
        path = run_dir / f"{name}.parquet"
        try:
            if name in left and files.sha256(path) != left[name]["sha256"]:
                raise fault(name, "is not the file that the run left: its SHA-256 differs from manifest.json")
            return pq.read_table(path)
        except FileNotFoundError:
            raise fault(name, "is missing") from None
        except (OSError, pa.ArrowException) as error:
            raise fault(name, f"is cut off or damaged ({str(error).splitlines()[0]})") from error

    return _computed(table, fault, manifest["parameters"], manifest)


def opened_frames(
    frames: Mapping[str, pd.DataFrame], parameters: Mapping[str, Any], manifest: Mapping[str, Any]
) -> duckdb.DuckDBPyConnection:
    """Return a database in memory with all tables of these frames. Raises SecondReadingError as `read_frames` does."""

    def fault(name: str, text: str) -> EmoStreamError:
        return SecondReadingError(f"The {name} frame {text}: pass the frame as the run wrote it.")

    def table(name: str) -> pa.Table:
        if name not in frames:
            raise fault(name, "is missing")
        try:
            return pa.Table.from_pandas(frames[name], preserve_index=False)
        except pa.ArrowException as error:
            raise fault(name, f"mixes kinds of values ({str(error).splitlines()[0]})") from error

    return _computed(table, fault, parameters, manifest)


def figures_of(connection: duckdb.DuckDBPyConnection) -> Figures:
    """Return the figures in a database that `opened` or `opened_frames` returned."""
    rows = connection.execute("SELECT key, value, text FROM figures").fetchall()
    return {key: text if text is not None else float("nan") if value is None else value for key, value, text in rows}


def _computed(
    table: Callable[[str], pa.Table],
    fault: Callable[[str, str], EmoStreamError],
    parameters: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config=dict(_OFFLINE))
    try:
        functions.register(connection)
        facts = {name: manifest.get(name) for name in FACTS}
        for variable, value in (("parameters", dict(parameters)), ("manifest", facts)):
            connection.execute(f"SET VARIABLE {variable} = ?", [json.dumps(value, default=str)])
        frames, checks, *others = _statements()
        connection.execute(frames)
        for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            _fill(connection, name, table(name), fault)
        connection.execute(checks)
        _check(connection, fault)
        for statements in others:
            connection.execute(statements)
    except BaseException:
        connection.close()
        raise
    return connection


@cache
def _statements() -> tuple[str, ...]:
    """Return the text of each SQL file, in the order of their numbers."""
    return tuple(
        path.read_text(encoding="utf-8")
        for path in sorted(SQL.iterdir(), key=lambda path: path.name)
        if path.name.endswith(".sql")
    )


def _fill(
    connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, fault: Callable[[str, str], EmoStreamError]
) -> None:
    """Write the rows into the table. Raises the `fault` of a column that is missing or has values of another type."""
    columns = [column for column, *_ in connection.execute(f"DESCRIBE {name}").fetchall()]
    absent = [column for column in OF_FORMS if column in columns and column not in rows.column_names]
    needed = [column for column in columns if column != "position" and column not in absent]
    missing = [column for column in needed if column not in rows.column_names]
    if missing:
        raise fault(name, f"is damaged (it lacks the column {', '.join(missing)})")
    made = {"position": "row_number() OVER ()"} | dict.fromkeys(absent, "NULL")
    chosen = ", ".join(made.get(column, f'"{column}"') for column in columns)
    connection.register("rows", rows.select(needed))
    try:
        connection.execute(f"INSERT INTO {name} SELECT {chosen} FROM rows")
    except (duckdb.ConversionException, duckdb.ConstraintException, duckdb.BinderException) as error:
        raise fault(name, f"is damaged ({str(error).splitlines()[0]})") from error
    finally:
        connection.unregister("rows")


def _check(connection: duckdb.DuckDBPyConnection, fault: Callable[[str, str], EmoStreamError]) -> None:
    """Raise the `fault` of the first frame that holds what no figure can be made of."""
    if row := connection.execute("SELECT frame, fault FROM unreadable").fetchone():
        raise fault(row[0], f"is damaged ({row[1]})")
