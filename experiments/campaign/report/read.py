"""A campaign's finished runs read back: one row per run, with every figure of its summary."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments import run_files
from experiments.campaign import campaign_file
from experiments.campaign.campaign_file import State

COLUMNS = ("index", "run", "block", "level", "valid", "unsteady", "passed", "reasons", "started", "ended")


def runs(campaign_dir: Path) -> pd.DataFrame:
    """Return one row per finished run, in the order of execution: COLUMNS, the level's factors as `factor_<name>`,
    and every key of the run's summary.json.

    `valid`, `unsteady` and `passed` are those of campaign.json, which judges by its design's objectives. In the figures
    null is NaN and "inf" is +inf. A campaign without a finished run gives no rows. Raises RunFileError naming the file
    that is missing or damaged.
    """
    rows = []
    for finished in campaign_file.read(campaign_dir).runs:
        of_run = {name: getattr(finished, name) for name in COLUMNS}
        summary = run_files.summary(campaign_dir / "runs" / finished.run)
        factors = {f"factor_{name}": value for name, value in finished.factors.items()}
        rows.append({**of_run, **factors, **{key: value for key, value in summary.items() if key not in of_run}})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))


def listed(table: pd.DataFrame, state: State) -> pd.DataFrame:
    """Return the rows of `runs` that are of runs of `state`, which may be a part of the campaign."""
    return table[table["run"].isin([run.run for run in state.runs])]


def factors(table: pd.DataFrame) -> list[str]:
    """Return the names of the factors that `runs` found, in the design's order."""
    return [str(name).removeprefix("factor_") for name in table.columns if str(name).startswith("factor_")]
