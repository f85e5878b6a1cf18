"""The report of a run: `summary/*.csv`, `summary/*.svg`, `summary.json`, `verdict.json` and `report.html`.

The page needs no scripts and loads nothing from elsewhere. The analysis is pure and elsewhere; here it becomes files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import files
from experiments.analysis import hdr
from experiments.analysis.analyse import Analysis, analyse
from experiments.analysis.deliveries import FAULTS
from experiments.report import figures, pages, svg
from experiments.report.format import plain
from experiments.report.pages import records, write_json
from experiments.report.sentences import findings

_NAMED_ROWS = 50  # of faults, on the page; the CSV has them all


def write_report(
    run_dir: Path,
    frames: Mapping[str, pd.DataFrame],
    parameters: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> Path:
    """Analyse a run (analysis.analyse), write its report into `run_dir`; return the path of report.html."""
    return write(run_dir, analyse(frames, parameters, manifest), parameters, manifest)


def write(run_dir: Path, analysis: Analysis, parameters: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
    """Write the report of an analysis; return the path of report.html."""
    write_summary(run_dir, analysis)
    summary_dir = run_dir / "summary"
    drawings = draw(analysis)
    for name, (text, data) in drawings.items():
        files.write_text(summary_dir / f"{name}.svg", text)
        files.to_csv(data, summary_dir / f"{name}.csv")
    for name, data in tables(analysis).items():
        files.to_csv(data, summary_dir / f"{name}.csv")
    path = run_dir / "report.html"
    files.write_text(path, render(analysis, drawings, parameters, manifest))
    return path


def write_summary(run_dir: Path, analysis: Analysis) -> None:
    """Write what a campaign reads of a run: `summary.json`, `verdict.json` and the two histograms."""
    summary_dir = run_dir / "summary"
    summary_dir.mkdir(parents=True, exist_ok=True)
    for name, histogram in (("latency", analysis.end_to_end.histogram), ("excess", analysis.excess.histogram())):
        files.write_text(summary_dir / f"{name}.hdr", hdr.encode(histogram) + "\n")
    write_json(run_dir / "summary.json", analysis.summary)
    write_json(run_dir / "verdict.json", analysis.verdict.to_json())


@svg.defaults()
def draw(analysis: Analysis) -> dict[str, figures.Drawing]:
    """Return the figures of a run by name: (SVG text, data behind it)."""
    waits = analysis.conditions.waits
    return {
        "spectrum": figures.spectrum_figure(analysis.spectrum),
        "hops": figures.hops_figure(analysis.hops),
        "excess": figures.excess_figure(analysis.excess.due),
        "drift": figures.drift_figure(analysis.end_to_end.windows, waits, analysis.drift),
        "batches": figures.batches_figure(analysis.batches, waits.trigger_s),
    }


def tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Return the tables that have no figure, by the name of their CSV."""
    return {
        "percentiles": analysis.percentiles,
        "lag": analysis.lags,
        "cells": analysis.cells,
        "types": figures.types_table(analysis.cells, analysis.conditions.group_size, most=10_000),
        "problems": analysis.conservation.problems,
        "oracle_differences": analysis.oracle.differing,
        "offset_breaks": analysis.offset_breaks,
        "answers_unexpected": analysis.answers_unexpected,
        "deliveries": analysis.audit,
    }


def render(
    analysis: Analysis,
    drawings: Mapping[str, figures.Drawing],
    parameters: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> str:
    """Return the page as text."""
    types = figures.types_table(analysis.cells, analysis.conditions.group_size)
    by_subscriber = analysis.audit.groupby(["cluster", "subscriber"], as_index=False).agg(
        clients=("client_id", "size"), **{name: (name, "sum") for name in ("due", "received", *FAULTS)}
    )
    hidden = {"clock_samples", "packages", "parameters", "other_run", "regenerate", "run", "started"}
    return pages.render(
        "report.html",
        a=analysis,
        s=analysis.summary,
        verdict=analysis.verdict,
        findings=findings(analysis.summary, parameters),
        figures={name: svg.inline(text) for name, (text, _) in drawings.items()},
        percentiles=records(analysis.percentiles),
        hops=records(analysis.hops),
        types=records(types),
        most=max(types["stand_for"].max(), types["count"].max()) if len(types) else 1,
        kinds=int(analysis.cells["emoji_type"].nunique()),
        problems=records(analysis.conservation.problems.head(_NAMED_ROWS)),
        differing=records(analysis.oracle.differing.head(_NAMED_ROWS)),
        breaks=records(analysis.offset_breaks.head(_NAMED_ROWS)),
        answers=records(analysis.answers_unexpected.head(_NAMED_ROWS)),
        named_rows=_NAMED_ROWS,
        audit=records(by_subscriber),
        faults=FAULTS,
        parameters=_flat(parameters),
        facts=_flat({key: value for key, value in manifest.items() if key not in hidden}),
        run=str(manifest.get("run", "run")),
        started=str(manifest.get("started", "")),
        regenerate=str(manifest.get("regenerate", "python -m experiments run")),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} · ")
        else:
            flat[f"{prefix}{key}"] = plain(value)
    return flat
