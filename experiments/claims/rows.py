"""The rows behind claims, as tables of duckdb: those of a kept campaign, or a benchmark's JSON file.

| table | of | a row per |
| --- | --- | --- |
| `json` | a JSON file | file, a column per key |
| `runs` | a campaign | finished run: `run, block, level, valid, passed, factor_<name>`, each figure from the rows |
| `machines` | a campaign | finished run: `run, cpu, cores, kernel, commit` |
| `capacity` | a search | campaign: `estimate, low, high, probes, passed` |
| `plan`, `sent`, `topic`, `windows`, … | a campaign | row of that frame, with its `run` |

`interval_low(list(x))` and `interval_high(list(x))` give the 95 % bootstrap interval of the median over runs.
"""

from __future__ import annotations

import dataclasses
import re
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pandas as pd

from experiments import files, ledger, run_files
from experiments.campaign import campaign_file, keep, reanalyse
from experiments.campaign.report import capacity
from experiments.claims.claim_file import Source
from experiments.stats.bootstrap import interval
from pipeline.errors import SettingError

REMEDY = "restore it from git; after a new measurement, run: emostream claims --write"
MACHINE = ("cpu", "cores", "kernel", "commit")


class Rows:
    """The tables of one source. Use it as a context; opening it compares every file with its hash."""

    def __init__(self, name: str, source: Source, root: Path, *, pinned: bool = True) -> None:
        self.name = name
        self.source = source
        self.path = root / source.path
        self._pinned = pinned
        self._tables: set[str] = set()

    @property
    def missing(self) -> bool:
        """Whether nothing was measured yet, or the rows are gone."""
        return not self.path.exists()

    def __enter__(self) -> Rows:
        """Open the source. Raises RunFileError naming a file that is missing, or has another hash."""
        if self.source.campaign:
            keep.check(self.path)
        run_files.raw(self._pin, REMEDY)
        if self._pinned and self.sha256() != self.source.sha256:
            raise run_files.damaged(
                self._pin, f"has another SHA-256 than the source {self.name} in claims.yaml names", REMEDY
            )
        self._connection = duckdb.connect()
        self._connection.execute("SET enable_progress_bar = false; SET threads = 1; SET python_scan_all_frames = false")
        for function in (interval_low, interval_high):
            self._connection.create_function(function.__name__, function, ["DOUBLE[]"], "DOUBLE")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._connection.close()

    @property
    def _pin(self) -> Path:
        return self.path / keep.SUMS if self.source.campaign else self.path

    def sha256(self) -> str:
        """Return the hash by which claims.yaml pins the source."""
        return files.sha256(self._pin)

    def commits(self) -> list[str | None]:
        """Return the commits at which the source was measured; None where one is not recorded."""
        if self.source.campaign:
            return [about.get("commit") for about in self._manifests.values()]
        content = self._json
        machine = content.get("machine")
        return [machine.get("commit") if isinstance(machine, dict) else content.get("commit")]

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query. Raises SettingError for one that duckdb refuses, or that gives no row."""
        for name in sorted(self._named(sql) - self._tables):
            if name == "json":
                self._connection.read_json(str(self.path)).create_view(name)
            else:
                self._connection.register(name, self._table(name))
            self._tables.add(name)
        try:
            answer = self._connection.execute(sql)
            columns = [column[0] for column in answer.description or ()]
            rows = [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]
        except duckdb.Error as error:
            raise SettingError(f"the query {sql!r} over {self.name} fails: {str(error).splitlines()[0]}") from error
        if not rows:
            raise SettingError(f"the query {sql!r} over {self.name} gives no row")
        return rows

    def check(self) -> int:
        """Compute every run's figures again; return the number of runs. Raises RunFileError as keep.check_summary."""
        return len(self._figures) if self.source.campaign else 0

    def _named(self, sql: str) -> set[str]:
        known = {"runs", "machines", "capacity", *ledger.COLUMNS} if self.source.campaign else {"json"}
        return known & set(re.findall(r"\b(?:from|join)\s+(\w+)", sql.lower()))

    def _table(self, name: str) -> pd.DataFrame:
        match name:
            case "runs":
                state = self._state
                rows = [
                    {
                        **self._figures[run.run],
                        **{key: getattr(run, key) for key in ("run", "block", "level", "valid", "passed", "started")},
                        **{f"factor_{key}": value for key, value in run.factors.items()},
                    }
                    for run in state.own.runs
                ]
                return pd.DataFrame(rows).drop(columns=["slos", "reasons"])
            case "machines":
                of_runs = (
                    {"run": run, **{key: about.get(key) for key in MACHINE}} for run, about in self._manifests.items()
                )
                return pd.DataFrame(of_runs)
            case "capacity":
                # Its probes passed or failed by figures that were just computed again.
                self.check()
                return pd.DataFrame([dataclasses.asdict(capacity.read(self.path).capacity)])
        return pd.concat([frames[name].assign(run=run) for run, frames in self._frames.items()], ignore_index=True)

    @cached_property
    def _json(self) -> dict[str, Any]:
        return run_files.decoded(self.path, dict[str, Any], REMEDY)

    @cached_property
    def _state(self) -> campaign_file.State:
        return campaign_file.read(self.path)

    @cached_property
    def _manifests(self) -> dict[str, dict[str, Any]]:
        return {run.run: run_files.manifest(self.path / "runs" / run.run) for run in self._state.runs}

    @cached_property
    def _frames(self) -> dict[str, dict[str, pd.DataFrame]]:
        return {run: reanalyse.frames(self.path / "runs" / run, about) for run, about in self._manifests.items()}

    @cached_property
    def _figures(self) -> dict[str, dict[str, Any]]:
        figures = {}
        for run in self._state.runs:
            again = keep.check_summary(self.path / "runs" / run.run)
            figures[run.run] = {key: run_files.number(value) for key, value in again.items()}
            _check_verdict(self.path, run, again)
        return figures


def interval_low(values: list[float]) -> float:
    """Return the lower end of the 95 % interval of the median over runs; NaN with too few runs."""
    return interval(values).low


def interval_high(values: list[float]) -> float:
    """Return the upper end of that interval."""
    return interval(values).high


def _check_verdict(path: Path, run: campaign_file.Finished, figures: dict[str, Any]) -> None:
    """Raise RunFileError if campaign.json has another verdict of the run than its rows give."""
    for key in ("valid", "passed"):
        if figures[key] != getattr(run, key):
            raise run_files.damaged(
                path / campaign_file.NAME,
                f"says {key} {getattr(run, key)} of run {run.run}, and its rows give {figures[key]}",
                REMEDY,
            )
