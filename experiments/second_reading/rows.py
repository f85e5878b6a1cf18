"""The figures and the rows of several runs in one database, for queries across runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import duckdb

from experiments import run_files
from experiments.second_reading.reading import SecondReadingError, opened

TABLES = {
    "figures": "SELECT key, value, text FROM figures",
    "reactions": "SELECT r.*, f.due_ns, f.floor_ns FROM reactions AS r JOIN floors AS f USING (seq) ORDER BY seq",
    "windows": "SELECT * EXCLUDE position FROM known ORDER BY position",
    "cells": "SELECT * FROM cells",
    "deliveries": "SELECT * EXCLUDE position FROM deliveries ORDER BY position",
    "receipts": "SELECT * FROM receipts",
    "excess": "SELECT * FROM excess",
    "batches": "SELECT * FROM batches",
    "lags": "SELECT * FROM lags",
    "usage": "SELECT * FROM usage",
}
"""The tables that `figures` writes, and what each holds of a run. Each has the column `run` before these.

`windows` has each (epoch, window) once; `receipts` is a row per window and client that should have it; `excess` a row
per trigger and value, with the number of `pairs` that have it.
"""


def figures(connection: duckdb.DuckDBPyConnection, run_dirs: Iterable[Path]) -> None:
    """Write TABLES of the runs into the database, and `runs`: `run, campaign, parameters, manifest` (JSON texts).

    `run` is the name of the run's directory, `campaign` that of its campaign. So `figures` is `run, key, value, text`.
    Raises RunFileError as `reading.read` does, and SecondReadingError for two runs of one name.
    """
    connection.execute("CREATE TABLE runs (run VARCHAR PRIMARY KEY, campaign VARCHAR, parameters JSON, manifest JSON)")
    for number, run_dir in enumerate(Path(each).resolve() for each in run_dirs):
        about = run_files.manifest(run_dir)
        row = [run_dir.name, run_dir.parent.parent.name, json.dumps(about["parameters"]), json.dumps(about)]
        try:
            connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", row)
        except duckdb.ConstraintException:
            raise SecondReadingError(f"Two runs are called {run_dir.name}: read them into two databases.") from None
        with opened(run_dir) as run:
            for table, query in TABLES.items():
                connection.register("rows_of_run", run.execute(query).to_arrow_table())
                into = f"INSERT INTO {table}" if number else f"CREATE TABLE {table} AS"
                connection.execute(f"{into} SELECT ? AS run, * FROM rows_of_run", [run_dir.name])
                connection.unregister("rows_of_run")
