"""A recorded run, analysed again: its report written anew from the files that it left, without a chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from experiments import ledger
from experiments.analysis.analyse import Analysis, analyse
from experiments.campaign import state
from experiments.campaign.report import page
from experiments.campaign.report import read as campaign_data
from experiments.report import run_page
from pipeline.errors import EmoStreamError


class RunDirectoryError(EmoStreamError):
    """A run's directory lacks a file, or has one that cannot be read."""


def run(run_dir: Path) -> Path:
    """Write the report of a run anew; return its path.

    Raises RunDirectoryError naming the file that is missing or cut off, before anything of that run is written.
    """
    result, about = analysed(run_dir)
    return run_page.write(run_dir, result, about["parameters"], about)


def whole_campaign(directory: Path) -> Path:
    """Analyse a campaign's finished runs again, judge them anew, and write its report; return that report's path.

    A run whose frames are not kept, as those of reports/reference in a checkout, stands as it was analysed. Raises
    RunDirectoryError as `run` does, and SettingError or EmoStreamError for a campaign.json that is damaged.
    """
    for row in campaign_data.about(directory)["runs"]:
        run_dir = directory / "runs" / row["run"]
        if any((run_dir / f"{name}.parquet").exists() for name in ledger.COLUMNS):
            run(run_dir)
    state.judge_anew(directory)
    return page.write(directory)


def analysed(run_dir: Path) -> tuple[Analysis, dict[str, Any]]:
    """Return the analysis of the run in `run_dir`, and its manifest. Raises RunDirectoryError as `run` does."""
    if not run_dir.is_dir():
        raise RunDirectoryError(f"there is no run directory {run_dir}: give that of a run or of a campaign")
    about = _json(run_dir / "manifest.json")
    if not isinstance(about.get("parameters"), dict):
        raise RunDirectoryError(f"{run_dir / 'manifest.json'} names no parameters: {_REMEDY}")
    return analyse({name: frame(run_dir, name) for name in ledger.COLUMNS}, about["parameters"], about), about


def frame(run_dir: Path, name: str) -> pd.DataFrame:
    """Return the frame `name` of the run in `run_dir`. Raises RunDirectoryError if it is missing or cut off."""
    path = run_dir / f"{name}.parquet"
    try:
        return ledger.require(name, pd.read_parquet(path))
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


_REMEDY = "the run was cut off or its files were damaged; remove its directory and measure again"


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(read, dict):
        raise RunDirectoryError(f"{path} is no JSON object: {_REMEDY}")
    return read


def _missing(path: Path) -> RunDirectoryError:
    return RunDirectoryError(f"{path} is missing: {_REMEDY}")


def _damaged(path: Path, error: Exception) -> RunDirectoryError:
    return RunDirectoryError(f"{path} cannot be read ({str(error).splitlines()[0]}): {_REMEDY}")
