"""The report of what limits the chain: `limits.html`, `result.json` and the tables as CSV, from a campaign's files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import files
from experiments.limits import findings
from experiments.limits.findings import METRIC, METRIC_NAME, Limits
from experiments.limits.plan import NONE
from experiments.report import pages, svg
from experiments.report.format import DASH, rounded, seconds, upper
from experiments.report.svg import BLUE, GREY, MUTED, PAPER
from pipeline.shell import command

NAME = "limits.html"


def write(directory: Path) -> Path:
    """Write the report of the campaign in `directory`; return the page's path. Raises as `findings.read` does."""
    result = findings.read(directory)
    tables = {"elasticities": findings.elasticity_rows(result), "demands": findings.demand_rows(result)}
    for name, rows in tables.items():
        files.to_csv(pd.DataFrame(rows), directory / f"{name}.csv")
    drawing = elasticity_figure(result)
    files.write_text(directory / "elasticities.svg", drawing)
    pages.write_json(directory / "result.json", result.to_json())
    files.write_text(directory / NAME, _render(result, drawing))
    return directory / NAME


@svg.defaults()
def elasticity_figure(result: Limits) -> str:
    """Draw each stage's elasticity with its interval, largest first; filled: the stage that is named."""
    known = [one for one in result.elasticities if not math.isnan(one.estimate)]
    if not known:
        return svg.nothing("elasticities", "No elasticity could be computed")
    rows = sorted(known, key=lambda one: -one.estimate)
    figure, (axes,) = svg.canvas(0.9 + 0.34 * len(rows))
    for at, one in enumerate(rows):
        sure = one.stage == result.named.stage
        colour = BLUE if sure else GREY
        if one.has_interval:
            axes.plot([one.low, one.high], [at, at], color=colour, lw=2.2, alpha=0.7)
        axes.plot([one.estimate], [at], "o", color=colour, mfc=colour if sure else PAPER, ms=6)
    axes.axvline(0, color=MUTED, lw=1)
    axes.set_yticks(range(len(rows)), [one.stage for one in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("elasticity: % more excess per % more CPU time of the stage")
    words = "; ".join(f"{one.stage} {one.estimate:.2f} ({one.low:.2f} to {one.high:.2f})" for one in rows)
    return svg.render(figure, "elasticities", f"Elasticity of the {METRIC_NAME} in each stage: {words}")


def _render(result: Limits, drawing: str) -> str:
    return pages.render(
        "limits.html",
        title="What limits the chain",
        load=rounded(result.load_per_s),
        cores=result.cores,
        started=result.state.started,
        findings=findings.sentences(result),
        metric=METRIC_NAME,
        drawing=svg.inline(drawing),
        elasticities=[_elasticity_cells(row) for row in findings.elasticity_rows(result)],
        as_is=result.passes[NONE],
        demands=[_demand_cells(row) for row in findings.demand_rows(result)],
        total=f"{result.cpu_s * 1e6:,.4g}",
        used=f"{result.cpu_s * result.load_per_s:.2f}",
        bound=rounded(result.bound_per_s) if result.cpu_s > 0 else DASH,
        runs=[_run_cells(row) for row in pages.records(result.runs)],
        design=result.state.design,
        command=command("experiments", "limits", "--campaign", result.state.campaign),
    )


def _elasticity_cells(row: dict[str, Any]) -> dict[str, Any]:
    return row | {
        "dilation": _number(1 / (1 - row["share"])),
        "elasticity": _number(row["elasticity"]),
        "interval": _interval(row["low"], row["high"]),
        "ratio": _number(row["ratio"]),
        "ratio_interval": _interval(row["ratio_low"], row["ratio_high"]),
        "detectable": _number(row["detectable"]),
    }


def _demand_cells(row: dict[str, Any]) -> dict[str, Any]:
    bound = row["bound_per_s"]
    return {
        "stage": "system and other programs" if row["stage"] == "others" else row["stage"],
        "cpu_us": f"{row['cpu_us']:,.3g}" if not math.isnan(row["cpu_us"]) else DASH,
        "interval": _interval(row["low_us"], row["high_us"], ".3g"),
        "share": "" if math.isnan(row["share"]) else f"{100 * row['share']:.0f} %",
        "cores": _number(row["cores"]),
        "processes": row["processes"] or DASH,
        "bound": rounded(bound) if math.isfinite(bound) else DASH,
    }


def _run_cells(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("block", "run", "valid", "unsteady", "passed")},
        "reasons": " ".join(row["reasons"]),
        "stage": "as it is" if row["stage"] == NONE else upper(row["stage"]),
        "reached": DASH if math.isnan(row["reached"]) else f"{100 * row['reached']:.1f} %",
        "excess": seconds(float(row[METRIC])),
        "p99": seconds(float(row["e2e_excess_p99_s"])),
        "cores": _number(float(row.get("cpu_share_machine", math.nan))),
    }


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else DASH


def _interval(low: float, high: float, form: str = ".2f") -> str:
    return f"{low:{form}} to {high:{form}}" if math.isfinite(low) and math.isfinite(high) else DASH
