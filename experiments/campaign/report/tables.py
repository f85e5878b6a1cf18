"""The tables of a campaign's page, as texts: key figures, levels, objectives, and the order of execution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from experiments.campaign.campaign_file import State
from experiments.campaign.report.estimates import believed
from experiments.campaign.report.levels import Layout, layout
from experiments.report.format import NBSP, Form, between, in_unit, percent, seconds, share, spread_only, whole


def tiles(plan: Layout, valid: pd.DataFrame, levels: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return the key figures of the level that the findings quote: (figure, what it is, its interval)."""
    if not len(valid[valid["level"] == plan.main] if len(valid) else valid):
        return []
    main = {row["key"]: row for row in levels[levels["level"] == plan.main].to_dict("records")}
    rows = []
    for key, words, form in (
        ("e2e_excess_p50_s", "median above the floor", seconds),
        ("e2e_excess_p99_s", "p99 above the floor", seconds),
        ("headroom", "micro-batch over interval, p95", percent),
    ):
        rows.append((form(main[key]["median"]), words, _interval(main[key], form) or _runs(main[key], form)))
    counted, accepted = whole(int(valid["counted"].sum())), whole(int(valid["accepted"].sum()))
    rows.append((counted, "reactions counted", f"of {accepted} accepted"))
    cells, equal = int(valid["oracle_cells"].sum()), int(valid["oracle_equal"].sum())
    rows.append((share(equal / cells if cells else None), "agree with the recount", f"{whole(cells)} counts"))
    missing, due = whole(int(valid["deliveries_missing"].sum())), whole(int(valid["deliveries_due"].sum()))
    rows.append((missing, "deliveries missing", f"of {due} due"))
    return rows


def level_rows(
    plan: Layout, runs: pd.DataFrame, levels: pd.DataFrame, objectives: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return a row per level for the table of levels: texts, each figure with its interval."""
    rows = []
    for level in plan.levels.to_dict("records"):
        finished = runs[runs["level"] == level["level"]]
        valid = believed(finished)
        figures = levels[levels["level"] == level["level"]].set_index("key")
        judged = objectives[objectives["level"] == level["level"]]
        cells = [
            _cell(figures.loc["e2e_excess_p50_s"], seconds),
            _cell(figures.loc["e2e_excess_p99_s"], seconds),
            _cell(figures.loc["batch_p95_s"], seconds),
            _cell(figures.loc["headroom"], percent),
            _cell(figures.loc["lag_slope_upper_share"], percent, worst=True),
            _cell(figures.loc["accepted_share"], share, least=True),
            _cell(figures.loc["oracle_share"], share, least=True),
        ]
        rows.append(
            {
                "label": level["label"],
                "main": level["level"] == plan.main and len(plan.levels) > 1,
                "planned": level["planned"],
                "finished": len(finished),
                "valid": len(valid),
                "cells": cells if len(valid) else [("–", "")] * len(cells),
                "lost": int(valid["lost"].sum()) if len(valid) else None,
                "duplicated": int(valid["duplicated"].sum()) if len(valid) else None,
                "passed": bool(judged["passed"].all()) if len(judged) else None,
                "missed": int((~judged["passed"]).sum()),
            }
        )
    return rows


def _cell(row: Any, form: Form, *, worst: bool = False, least: bool = False) -> tuple[str, str]:
    """Return a figure and its interval; for a figure that is judged by its worst run, that run's alone."""
    if worst or least:
        return form(row["most"] if worst else row["least"]), ""
    return form(row["median"]), _interval(row, form)


def _runs(row: Any, form: Form) -> str:
    """Return the range of the runs of a figure without an interval."""
    if not row["runs"]:
        return "not measured"
    if row["runs"] == 1:
        return "one run"
    seen = between(form(row["least"]), form(row["most"]), form(row["median"])).replace(" to ", "–")
    return f"{row['runs']} runs: {seen}"


def _interval(row: Any, form: Form) -> str:
    return spread_only(row, form).replace(" to ", "–")


def slo_levels(plan: Layout, objectives: pd.DataFrame) -> list[str]:
    """Return the labels of the levels that were judged: the column heads of `slo_rows`."""
    return [label for _, label in _judged(plan, objectives)]


def slo_rows(plan: Layout, objectives: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row per objective: name, limit, and a cell for each judged level.

    A cell has the figure of the worst run, the median, and whether it was met; it is None where it was not judged.
    """
    levels = [objectives[objectives["level"] == level].set_index("key") for level, _ in _judged(plan, objectives)]
    return [
        {
            "name": first["name"].replace(" %", f"{NBSP}%"),
            "limit": ("≥ " if first["at_least"] else "≤ ") + in_unit(first["limit"], first["unit"]),
            "cells": [_result(level.loc[first["key"]]) if first["key"] in level.index else None for level in levels],
        }
        for first in objectives.drop_duplicates("key").to_dict("records")
    ]


def _judged(plan: Layout, objectives: pd.DataFrame) -> list[tuple[str, str]]:
    known = set(objectives["level"])
    levels = zip(plan.levels["level"], plan.levels["label"], strict=True)
    return [(level, label) for level, label in levels if level in known]


def _result(row: Any) -> dict[str, Any]:
    worst, median = (in_unit(row[name], row["unit"]) for name in ("worst", "median"))
    passed, missed, runs = bool(row["passed"]), int(row["missed"]), int(row["runs"])
    return {"worst": worst, "median": median, "passed": passed, "missed": missed, "runs": runs}


def order_rows(campaign_dir: Path, state: State) -> list[dict[str, Any]]:
    """Return a row per finished run, in the order of execution."""
    # A probe of a footprint is no level: it has its whole name.
    labels = layout(state.own).levels.set_index("level")["label"]
    rows = []
    for position, run in enumerate(state.runs, 1):
        folder = f"runs/{run.run}"
        page_of_run = f"{folder}/report.html"
        rows.append(
            {
                "position": position,
                "run": run.run,
                "link": page_of_run if (campaign_dir / page_of_run).is_file() else f"{folder}/summary.json",
                "block": run.block,
                "label": labels.get(run.level, run.level),
                "started": run.started,
                "valid": run.valid,
                "unsteady": run.unsteady,
                "again": [] if state.searches else [one.run for one in state.runs[position:] if one.index == run.index],
                "passed": run.passed,
                "reasons": run.reasons,
            }
        )
    return rows
