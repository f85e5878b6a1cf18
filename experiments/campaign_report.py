"""The report of a campaign: `summary/` and `index.html`, from what the repository keeps of its runs.

Only campaign.json and of each run manifest.json, verdict.json, summary.json and summary/latency.hdr are read, so
that the report of a campaign in git can be written anew. A campaign that is not finished says how far it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import campaign_data, campaign_facts, campaign_figures, campaign_levels, campaign_wording, page, svg
from experiments.batches import Drift, drift
from experiments.campaign_levels import FEW_RUNS, Layout
from experiments.campaign_spectra import spectra
from experiments.figures import Drawing
from experiments.schedule import NS_PER_S
from experiments.wording import NBSP, seconds

KEYS = (
    "e2e_p50_s",
    "e2e_p99_s",
    "e2e_excess_p50_s",
    "e2e_excess_p99_s",
    "batch_p95_s",
    "headroom",
    "lag_slope_upper_share",
    "offered_per_s",
    "accepted_per_s",
    "accepted_share",
    "oracle_share",
    "representation_error",
    "representation_bound",
    "tv_distance",
)
"""The figures of levels.csv; any other of the summary is in runs.csv."""
DRIFTS = ("e2e_excess_p50_s", "batch_p95_s")


def write(campaign_dir: Path) -> Path:
    """Write the report of the campaign in `campaign_dir` and return the path of index.html.

    Raises SettingError naming the file and the remedy where campaign.json or a finished run is damaged.
    """
    about = campaign_data.about(campaign_dir)
    runs = campaign_levels.derived(campaign_data.runs(campaign_dir))
    plan = campaign_levels.layout(about)
    valid = runs[runs["valid"].astype(bool)] if len(runs) else runs
    facts = campaign_facts.facts(campaign_dir, runs)
    objectives = campaign_facts.by_level(campaign_facts.objectives(campaign_dir, runs), plan.levels)
    levels = campaign_levels.estimates(valid, plan.levels, KEYS)
    drawings = draw(campaign_dir, about, plan, valid)
    summary_dir = campaign_dir / "summary"
    summary_dir.mkdir(exist_ok=True)
    for name, (text, data) in drawings.items():
        (summary_dir / f"{name}.svg").write_text(text, encoding="utf-8")
        data.to_csv(summary_dir / f"{name}.csv", index=False)
    levels.to_csv(summary_dir / "levels.csv", index=False)
    objectives.to_csv(summary_dir / "objectives.csv", index=False)
    flat = runs.drop(columns=[name for name in ("slos",) if name in runs]).assign(
        reasons=["; ".join(reasons) for reasons in runs["reasons"]]
    )
    flat.to_csv(summary_dir / "runs.csv", index=False)
    # A factor may be text at one level and a number at another: Parquet wants one type a column.
    mixed = [name for name in flat.columns if flat[name].dtype == object]
    flat.astype(dict.fromkeys(mixed, "string")).to_parquet(summary_dir / "runs.parquet", index=False)
    path = campaign_dir / "index.html"
    text = render(campaign_dir, about, plan, runs, levels, objectives, facts, drawings)
    path.write_text(text, encoding="utf-8")
    return path


def draw(campaign_dir: Path, about: Mapping[str, Any], plan: Layout, valid: pd.DataFrame) -> dict[str, Drawing]:
    """Return the figures of a campaign by name, in the order shown: (SVG text, data behind it)."""
    limit = about["design"].get("slos", {}).get("headroom")
    residuals, drifts = in_order(valid, plan)
    return {
        "excess": campaign_figures.excess_figure(valid, plan),
        "spectrum": campaign_figures.spectrum_figure(spectra(campaign_dir, about, valid, plan.levels), plan),
        "hops": campaign_figures.hops_figure(valid, plan),
        "headroom": campaign_figures.headroom_figure(valid, plan, limit),
        "faults": campaign_figures.faults_figure(valid, plan),
        "accuracy": campaign_figures.accuracy_figure(valid, plan),
        "order": campaign_figures.order_figure(residuals, drifts),
    }


def in_order(valid: pd.DataFrame, plan: Layout) -> tuple[pd.DataFrame, dict[str, Drift]]:
    """Return each valid run's distance from its level's mean, in ms, and the drift of it over the runs.

    Rows, in the order that happened: `position` (counted from 1 over all finished runs), `run, block, level` and
    the distance for each of DRIFTS. A level with a single valid run has no distance and is left out.
    """
    rows = pd.DataFrame({"position": valid.index + 1, **{name: valid.get(name) for name in ("run", "block", "level")}})
    for key in DRIFTS:
        finite = pd.to_numeric(valid.get(key), errors="coerce").replace([np.inf, -np.inf], np.nan)
        rows[key] = (
            ((finite - finite.groupby(valid["level"]).transform("mean")) * 1000).to_numpy() if len(valid) else []
        )
    several = valid.groupby("level")["run"].transform("size") > 1 if len(valid) else valid.index > 0
    rows = rows[np.asarray(several, dtype=bool)].reset_index(drop=True)
    # `drift` reckons in ms a minute: with a run as its minute, in ms a run.
    minutes = rows["position"].astype("int64") * 60 * NS_PER_S
    return rows, {key: drift(minutes, rows[key] / 1000) for key in DRIFTS}


def render(
    campaign_dir: Path,
    about: Mapping[str, Any],
    plan: Layout,
    runs: pd.DataFrame,
    levels: pd.DataFrame,
    objectives: pd.DataFrame,
    facts: campaign_facts.Facts,
    drawings: Mapping[str, Drawing],
) -> str:
    """Return the page as text."""
    design = about["design"]
    valid = runs[runs["valid"].astype(bool)] if len(runs) else runs
    return page.render(
        "campaign.html",
        title=str(about["campaign"]),
        about=about,
        design=design,
        plan=plan,
        findings=campaign_wording.findings(about, plan, runs, objectives),
        warnings=[*campaign_wording.warnings(runs, plan), *facts.warnings],
        tiles=tiles(plan, valid, levels),
        levels=level_rows(plan, runs, levels, objectives),
        slos=slo_columns(objectives),
        slo_rows=slo_rows(plan, objectives),
        figures={name: svg.inline(text) for name, (text, _) in drawings.items()},
        order=order_rows(campaign_dir, about),
        finished=len(runs),
        valid=len(valid),
        missed=sorted(set(objectives.loc[~objectives["passed"], "key"])),
        facts=facts,
        span=_span(about),
        few=FEW_RUNS,
        undelivered=int(valid["undelivered"].sum()) if len(valid) else 0,
        closed=_closed(about),
        regenerate=_regenerate(about),
    )


def tiles(plan: Layout, valid: pd.DataFrame, levels: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return the key figures of the level that the findings quote: (figure, what it is, its interval)."""
    if not len(valid[valid["level"] == plan.main] if len(valid) else valid):
        return []
    main = levels[levels["level"] == plan.main].set_index("key")
    rows = []
    for key, words, form in (
        ("e2e_excess_p50_s", "median above the floor", seconds),
        ("e2e_excess_p99_s", "p99 above the floor", seconds),
        ("headroom", "micro-batch over interval, p95", campaign_wording.percent),
    ):
        row = main.loc[key]
        rows.append((form(row["median"]), words, _interval(row, form)))
    rows.append(
        (page.whole(int(valid["counted"].sum())), "reactions counted", f"of {int(valid['accepted'].sum()):,} accepted")
    )
    cells, equal = int(valid["oracle_cells"].sum()), int(valid["oracle_equal"].sum())
    rows.append((page.share(equal / cells if cells else None), "agree with the recount", f"{cells:,} counts"))
    missing = int(valid["deliveries_missing"].sum())
    rows.append((f"{missing:,}", "deliveries missing", f"of {int(valid['deliveries_due'].sum()):,} due"))
    return rows


def level_rows(
    plan: Layout, runs: pd.DataFrame, levels: pd.DataFrame, objectives: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return a row a level for the table of levels: texts, each figure with its interval."""
    rows = []
    for level in plan.levels.to_dict("records"):
        ours = runs[runs["level"] == level["level"]] if len(runs) else runs
        valid = ours[ours["valid"].astype(bool)] if len(ours) else ours
        figures = levels[levels["level"] == level["level"]].set_index("key")
        judged = objectives[objectives["level"] == level["level"]]
        cells = [
            _cell(figures.loc["e2e_excess_p50_s"], seconds),
            _cell(figures.loc["e2e_excess_p99_s"], seconds),
            _cell(figures.loc["batch_p95_s"], seconds),
            _cell(figures.loc["headroom"], campaign_wording.percent),
            _cell(figures.loc["lag_slope_upper_share"], campaign_wording.percent, worst=True),
            _cell(figures.loc["accepted_share"], page.share, least=True),
            _cell(figures.loc["oracle_share"], page.share, least=True),
        ]
        rows.append(
            {
                "label": level["label"],
                "main": level["level"] == plan.main and len(plan.levels) > 1,
                "planned": level["planned"],
                "finished": len(ours),
                "valid": len(valid),
                "cells": cells if len(valid) else [("–", "")] * len(cells),
                "lost": int(valid["lost"].sum()) if len(valid) else None,
                "duplicated": int(valid["duplicated"].sum()) if len(valid) else None,
                "passed": bool(judged["passed"].all()) if len(judged) else None,
                "missed": int((~judged["passed"]).sum()),
            }
        )
    return rows


def _cell(row: Any, form: Any, *, worst: bool = False, least: bool = False) -> tuple[str, str]:
    """A figure and its interval; for what is judged by its worst run, that run's."""
    if worst or least:
        return form(row["most"] if worst else row["least"]), ""
    return form(row["median"]), _interval(row, form)


def _interval(row: Any, form: Any) -> str:
    if row["runs"] < FEW_RUNS or not math.isfinite(row["high"]):
        return "no interval" if row["runs"] else ""
    low, high = form(row["low"]), form(row["high"])
    return campaign_wording.between(low, high, form(row["median"])).replace(" to ", "–")


def slo_columns(objectives: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the objectives with their limits as a table's heads."""
    return [
        {
            "name": first["name"].replace(" %", f"{NBSP}%"),
            "limit": ("≥ " if first["at_least"] else "≤ ") + campaign_wording.slo_figure(first["limit"], first["unit"]),
        }
        for first in objectives.drop_duplicates("key").to_dict("records")
    ]


def slo_rows(plan: Layout, objectives: pd.DataFrame) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Return (label, results) per level, a result for each of `slo_columns`: worst and median, and whether met."""
    keys = list(objectives["key"].drop_duplicates())
    rows = []
    for level, label in zip(plan.levels["level"], plan.levels["label"], strict=True):
        ours = objectives[objectives["level"] == level].set_index("key")
        cells: list[dict[str, Any] | None] = []
        for key in keys:
            if key not in ours.index:
                cells.append(None)
                continue
            row = ours.loc[key]
            worst, median = (campaign_wording.slo_figure(row[name], row["unit"]) for name in ("worst", "median"))
            cells.append({"worst": worst, "median": median, "passed": bool(row["passed"]), "missed": int(row["missed"]),
                          "runs": int(row["runs"])})  # fmt: skip
        if len(ours):
            rows.append((label, cells))
    return rows


def order_rows(campaign_dir: Path, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a finished, abandoned or coming run, in the order that happened and then that is planned."""
    labels = campaign_levels.layout(about).levels.set_index("level")["label"]
    rows = []
    for position, run in enumerate(about["runs"], 1):
        folder = f"runs/{run['run']}"
        page_of_run = f"{folder}/report.html"
        rows.append(
            {
                "position": position,
                "run": run["run"],
                "link": page_of_run if (campaign_dir / page_of_run).is_file() else f"{folder}/summary.json",
                "block": run["block"],
                "label": labels.get(run["level"], run["level"]),
                "started": str(run.get("started", "")),
                "valid": bool(run["valid"]),
                "passed": bool(run.get("passed")),
                "reasons": list(run.get("reasons") or ()),
            }
        )
    return rows


def _span(about: Mapping[str, Any]) -> str:
    first, last = (str(about.get(name) or "")[:16].replace("T", " ") for name in ("started", "ended"))
    return f"{first} to {last[11:] if last[:10] == first[:10] else last} UTC" if last else f"begun {first} UTC"


def _closed(about: Mapping[str, Any]) -> bool:
    given = [row.get("parameters", {}).get("loop") for row in about["order"]]
    return "closed" in given or about["design"].get("parameters", {}).get("loop") == "closed"


def _regenerate(about: Mapping[str, Any]) -> str:
    name = about["design"].get("name", "DESIGN")
    return (
        "# this page, from the files beside it\n"
        f'python -c "from pathlib import Path; from experiments import campaign_report as r; '
        f"print(r.write(Path('reports/{about['campaign']}')))\"\n\n"
        "# the measurement itself, with the same loads; a campaign cut short goes on where it was\n"
        f"python -m experiments sweep experiments/designs/{name}.yaml"
    )
