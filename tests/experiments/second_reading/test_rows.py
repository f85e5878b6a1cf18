"""Several runs in one database: figures and rows by the name of the run."""

from __future__ import annotations

import shutil

import duckdb
import pytest

from experiments.second_reading import rows
from experiments.second_reading.reading import SecondReadingError, read


def test_figures_and_rows_of_several_runs(run_dir):
    """A query compares them by `run`."""
    other = shutil.copytree(run_dir, run_dir.with_name("another"))
    with duckdb.connect() as connection:
        rows.figures(connection, [run_dir, other])
        found = connection.execute("SELECT run, value FROM figures WHERE key = 'e2e_p50_s' ORDER BY run").fetchall()
        assert found == [(run_dir.name, read(run_dir)["e2e_p50_s"]), ("another", found[0][1])]
        for table in rows.TABLES:
            numbers = connection.execute(f"SELECT count(*) FROM {table} GROUP BY run").fetchall()
            assert len(numbers) == 2, table
            assert numbers[0] == numbers[1], table
        about = connection.execute("SELECT run, campaign, parameters ->> 'policy' FROM runs ORDER BY run").fetchall()
        assert about == [(run_dir.name, "campaign", "ceil"), ("another", "campaign", "ceil")]


def test_two_runs_of_one_name_are_refused(run_dir):
    """Their rows could not be told apart."""
    with duckdb.connect() as connection, pytest.raises(SecondReadingError, match=f"Two runs are called {run_dir.name}"):
        rows.figures(connection, [run_dir, run_dir])
