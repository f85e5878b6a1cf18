"""The percentile spectrum of each level, from the HdrHistograms that its runs keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import run_files
from experiments.analysis import hdr
from experiments.analysis.analyse import Conditions
from experiments.analysis.floor import spectrum
from experiments.analysis.latency import Histogram
from experiments.campaign.campaign_file import State
from experiments.parameters import Parameters
from pipeline.errors import SettingError

COLUMNS = ["level", "label", "quantile", "observed_s", "floor_s", "excess_s"]
POINTS = 120


def spectra(campaign_dir: Path, state: State, valid: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of floor.spectrum for each level, of the latencies of all its valid runs merged.

    Columns: COLUMNS. A level is left out if one of its runs kept no `summary/latency.hdr`: a spectrum of some runs
    would be taken for that of all. Raises RunFileError naming a histogram that is damaged.
    """
    given = {planned.level: planned.parameters for planned in state.order}
    parts = []
    for level, label in zip(levels["level"], levels["label"], strict=True):
        of_level = valid[valid["level"] == level]
        paths = [campaign_dir / "runs" / run / "summary" / "latency.hdr" for run in of_level["run"]]
        if not paths or not all(path.exists() for path in paths):
            continue
        rows = spectrum(merged(paths, of_level), Conditions.of(_all(given.get(level, {}))).waits, POINTS)
        parts.append(rows.assign(level=level, label=label)[COLUMNS])
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def merged(paths: list[Path], runs: pd.DataFrame) -> Histogram:
    """Return the 1 ms histogram of the latencies in `paths`, with the undelivered pairs of the runs' summaries."""
    histogram = hdr.empty()
    for path in paths:
        try:
            histogram.add(hdr.merged([run_files.raw(path).decode("ascii", "replace")]))
        except SettingError as error:
            raise run_files.damaged(path, f"is damaged ({error})") from error
    negative, undelivered, reactions = (
        int(runs[key].sum()) for key in ("negative", "undelivered", "reactions_measured")
    )
    return hdr.decoded(histogram, undelivered=undelivered, negative=negative, reactions=reactions)


def _all(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all parameters of a run: those that the design does not name have their defaults."""
    return {name: given.get(name, value) for name, value in vars(Parameters()).items()}
