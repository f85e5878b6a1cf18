"""The percentile spectrum of each level, from the HdrHistograms that its runs keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import run_files
from experiments.analysis import hdr
from experiments.analysis.analyse import Conditions
from experiments.analysis.floor import Quantiles, Waits, spectrum
from experiments.analysis.latency import Histogram
from experiments.campaign.campaign_file import State
from experiments.parameters import Parameters
from pipeline.errors import SettingError

COLUMNS = ["level", "label", "quantile", "observed_s", "floor_s", "excess_s"]
POINTS = 120


def spectra(campaign_dir: Path, state: State, valid: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of floor.spectrum for each level, of the latencies and the excess of all its valid runs merged.

    Columns: COLUMNS. A level is left out if one of its runs kept no `summary/latency.hdr`: a spectrum of some runs
    would be taken for that of all. Runs of the protocol's first edition have no `summary/excess.hdr`; a level with such
    a run has their excess, the difference of two quantiles. Raises RunFileError naming a histogram that is damaged.
    """
    given = {planned.level: planned.parameters for planned in state.order}
    parts = []
    for level, label in zip(levels["level"], levels["label"], strict=True):
        of_level = valid[valid["level"] == level]
        summaries = [campaign_dir / "runs" / run / "summary" for run in of_level["run"]]
        if not summaries or not all((folder / "latency.hdr").exists() for folder in summaries):
            continue
        latencies = merged([folder / "latency.hdr" for folder in summaries], of_level)
        waits = Conditions.of(_all(given.get(level, {}))).waits
        rows = spectrum(latencies, waits.quantile_s, _excess(summaries, of_level, latencies, waits), POINTS)
        parts.append(rows.assign(level=level, label=label)[COLUMNS])
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _excess(summaries: list[Path], runs: pd.DataFrame, latencies: Histogram, waits: Waits) -> Quantiles:
    if all((folder / "excess.hdr").exists() for folder in summaries):
        return merged([folder / "excess.hdr" for folder in summaries], runs).quantile_s
    return lambda q: latencies.quantile_s(q) - waits.quantile_s(q)


def merged(paths: list[Path], runs: pd.DataFrame) -> Histogram:
    """Return the 1 ms histogram of the times in `paths`, with the undelivered pairs of the runs' summaries."""
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
