"""A recorded run, analysed again: its report is written again from the files that it left, without a chain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from experiments import files, frame_files, ledger, run_files
from experiments.analysis.analyse import Analysis, analyse
from experiments.campaign import campaign_file, state
from experiments.campaign.report import page
from experiments.progress import Progress
from experiments.report import run_page

# What the analysis of one run takes, for the estimate of the time left.
RUN_S = 3.0


def report(directory: Path) -> Path:
    """Write the report of the run or the campaign in `directory` again; return its path. Raises RunFileError."""
    # A campaign without its campaign.json is still no run: the message must name the file that is missing.
    campaign = campaign_file.exists(directory) or (directory / "runs").is_dir()
    if not campaign and directory.is_dir():
        _check_run(directory)
    return whole_campaign(directory) if campaign else run(directory)


def _check_run(directory: Path) -> None:
    """Raise RunFileError naming the campaigns in `directory` if it has no file of a run."""
    names = [
        *(f"{name}.json" for name in ("manifest", "summary", "verdict")),
        *(f"{name}.parquet" for name in ledger.COLUMNS),
    ]
    if any((directory / name).exists() for name in names):
        return
    campaigns = sorted(path for path in directory.iterdir() if campaign_file.exists(path))
    there = (
        f", such as {campaigns[0]}; its campaigns are {', '.join(path.name for path in campaigns)}" if campaigns else ""
    )
    raise run_files.RunFileError(
        f"{directory} is neither a run nor a campaign: give the directory of one of them{there}"
    )


def run(run_dir: Path) -> Path:
    """Write the report of a run again; return its path.

    Raises RunFileError naming the file that is missing or damaged, before anything of that run is written.
    """
    result, manifest = analysed(run_dir)
    return run_page.write(run_dir, result, manifest["parameters"], manifest)


def whole_campaign(directory: Path) -> Path:
    """Analyse and judge a campaign's finished runs again, and write its report; return that report's path.

    A run whose frames are not kept, as those of reports/reference in a checkout, keeps its figures. Raises RunFileError
    naming the file that is missing or damaged.
    """
    runs = [directory / "runs" / finished.run for finished in campaign_file.read(directory).runs]
    kept = [run_dir for run_dir in runs if any((run_dir / f"{name}.parquet").exists() for name in ledger.COLUMNS)]
    with Progress((len(kept) + 1) * RUN_S) as progress:
        for number, run_dir in enumerate(kept, 1):
            progress.begin(f"run {number}/{len(kept)}: {run_dir.name}", RUN_S)
            run(run_dir)
        progress.begin("the campaign's report", RUN_S)
        state.judge_again(directory)
        return page.write(directory)


def analysed(run_dir: Path) -> tuple[Analysis, dict[str, Any]]:
    """Return the analysis of the run in `run_dir`, and its manifest. Raises RunFileError as `run` does."""
    if not run_dir.is_dir():
        raise run_files.RunFileError(f"there is no directory {run_dir}: give that of a run or of a campaign")
    manifest = run_files.manifest(run_dir)
    # No name here for the frames: the analysis lets the largest go when it no longer needs them.
    return analyse(_frames(run_dir, manifest.get("frames", {})), manifest["parameters"], manifest), manifest


def _frames(run_dir: Path, left: Mapping[str, Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Return all frames of a run, whose files must be as it `left` them."""
    frames = {name: frame(run_dir, name) for name in ledger.COLUMNS}
    _check_unchanged(run_dir, left)
    return frames


def _check_unchanged(run_dir: Path, left: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare each frame's file with the hash that its run `left`. Raises RunFileError naming one that differs."""
    for name, file in left.items():
        path = run_dir / f"{name}.parquet"
        if files.sha256(path) != file["sha256"]:
            raise run_files.damaged(path, "is not the file that the run left: its SHA-256 differs from manifest.json")


def frame(run_dir: Path, name: str) -> pd.DataFrame:
    """Return the frame `name` of the run in `run_dir`. Raises RunFileError if it is missing or damaged."""
    path = run_dir / f"{name}.parquet"
    try:
        return ledger.require(name, frame_files.read(path, name))
    except FileNotFoundError:
        raise run_files.damaged(path, "is missing") from None
    except ledger.LedgerError as error:
        raise run_files.damaged(path, f"is damaged ({str(error).rstrip('.')})") from error
    except (OSError, pa.ArrowException) as error:
        raise run_files.damaged(path, f"is cut off or damaged ({str(error).splitlines()[0]})") from error
