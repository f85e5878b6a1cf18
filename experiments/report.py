"""The report of a run: `summary/*.csv`, `summary/*.svg`, `summary.json`, `verdict.json` and `report.html`.

The page is whole in itself: no scripts, nothing fetched. Analysis is elsewhere and pure; here it becomes
files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments import figures, files, svg
from experiments.analysis import Analysis, analyse
from experiments.audit import FAULTS
from experiments.statistics import hdr
from experiments.wording import findings, seconds

_TEMPLATES = Path(__file__).parent / "templates"
_NAMED_ROWS = 50  # a page lists so many faults; the CSV has them all


def write_report(
    run_dir: Path,
    frames: Mapping[str, pd.DataFrame],
    parameters: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> Path:
    """Analyse a run (analysis.analyse), write its report into `run_dir`; return the path of report.html."""
    return write(run_dir, analyse(frames, parameters, manifest), parameters, manifest)


def write(run_dir: Path, analysis: Analysis, parameters: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
    """Write the report of an analysis that is already there; return the path of report.html."""
    summary_dir = run_dir / "summary"
    summary_dir.mkdir(parents=True, exist_ok=True)
    drawings = draw(analysis)
    for name, (text, data) in drawings.items():
        files.write_text(summary_dir / f"{name}.svg", text)
        files.to_csv(data, summary_dir / f"{name}.csv")
    for name, data in tables(analysis).items():
        files.to_csv(data, summary_dir / f"{name}.csv")
    files.write_text(summary_dir / "latency.hdr", hdr.encode(analysis.end_to_end.histogram) + "\n")
    _write_json(run_dir / "summary.json", analysis.summary)
    _write_json(run_dir / "verdict.json", analysis.verdict.to_json())
    page = run_dir / "report.html"
    files.write_text(page, render(analysis, drawings, parameters, manifest))
    return page


def draw(analysis: Analysis) -> dict[str, figures.Drawing]:
    """Return the figures of a run by name: (SVG text, data behind it)."""
    waits = analysis.conditions.waits
    return {
        "spectrum": figures.spectrum_figure(analysis.spectrum),
        "hops": figures.hops_figure(analysis.hops),
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
        "deliveries": analysis.audit,
    }


def render(
    analysis: Analysis,
    drawings: Mapping[str, figures.Drawing],
    parameters: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> str:
    """Return the page as text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": seconds, "ms": _ms, "share": _share, "whole": _whole, "plain": _plain}
    types = figures.types_table(analysis.cells, analysis.conditions.group_size)
    by_subscriber = analysis.audit.groupby(["cluster", "subscriber"], as_index=False).agg(
        clients=("client_id", "size"), **{name: (name, "sum") for name in ("due", "received", *FAULTS)}
    )
    hidden = {"clock_samples", "parameters", "other_run", "regenerate", "run", "started"}
    return environment.get_template("report.html").render(
        a=analysis,
        s=analysis.summary,
        verdict=analysis.verdict,
        findings=findings(analysis.summary, parameters),
        figures={name: svg.inline(text) for name, (text, _) in drawings.items()},
        light=svg.LIGHT,
        dark=svg.DARK,
        percentiles=_records(analysis.percentiles),
        hops=_records(analysis.hops),
        types=_records(types),
        most=max(types["stand_for"].max(), types["count"].max()) if len(types) else 1,
        kinds=int(analysis.cells["emoji_type"].nunique()),
        problems=_records(analysis.conservation.problems.head(_NAMED_ROWS)),
        differing=_records(analysis.oracle.differing.head(_NAMED_ROWS)),
        breaks=_records(analysis.offset_breaks.head(_NAMED_ROWS)),
        named_rows=_NAMED_ROWS,
        audit=_records(by_subscriber),
        faults=FAULTS,
        parameters=_flat(parameters),
        facts=_flat({key: value for key, value in manifest.items() if key not in hidden}),
        run=str(manifest.get("run", "run")),
        started=str(manifest.get("started", "")),
        regenerate=str(manifest.get("regenerate", "python -m experiments run")),
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} · ")
        else:
            flat[f"{prefix}{key}"] = _plain(value)
    return flat


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ms(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _share(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    # 99.98 % must not be rounded into a perfect score.
    return (
        f"{math.floor(value * 1000) / 10:.1f} %" if 0.99 < value < 1 else f"{value * 100:.1f} %".replace("100.0", "100")
    )


def _whole(value: int) -> str:
    return f"{value:,}"


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    files.write_text(path, json.dumps(_strict(values), indent=2, ensure_ascii=False) + "\n")


def _strict(value: Any) -> Any:
    """Return the value as strict JSON has it: NaN (not measured) as null, +inf (never arrived) as "inf"."""
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
