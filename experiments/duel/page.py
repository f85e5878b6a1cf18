"""What a duel supports: its page, `result.json` and `differences.csv`, from duel.json and the runs beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from experiments import files, run_files
from experiments.campaign.report import compare, differences
from experiments.campaign.report.estimates import derived
from experiments.campaign.report.levels import phrase
from experiments.duel.match import Match, Version
from experiments.report import pages, svg
from experiments.report.format import NBSP, count, left_out, listed, seconds
from pipeline.shell import command

SIDES = ("A", "B")


def write(directory: Path, match: Match) -> Path:
    """Write the report of the duel in `directory`; return the page's path. Raises RunFileError for a damaged run."""
    runs = read(directory, match)
    levels = _levels(match)
    table = differences.judged(levels, *(_believed(runs, side) for side in SIDES))
    sentences = findings(match, runs, table)
    page = directory / "index.html"
    files.to_csv(table, directory / "differences.csv")
    pages.write_json(
        directory / "result.json",
        {
            "versions": msgspec.to_builtins(match.versions),
            "blocks": match.design.blocks,
            "findings": [sentence.replace(NBSP, " ") for sentence in sentences],
            "supported": int((table["verdict"] == "supported").sum()),
            "differences": pages.records(table),
        },
    )
    files.write_text(page, _render(match, runs, table, sentences))
    return page


def read(directory: Path, match: Match) -> pd.DataFrame:
    """Return a row per finished run, in the order of execution: `side, block, level, run, valid, unsteady,
    passed, reasons`, and
    the figures of its summary.
    """
    rows = []
    for finished in match.runs:
        bout = match.order[finished.index]
        summary = run_files.summary(directory / bout.side / "runs" / finished.run)
        of_run = {
            "side": bout.side, "block": bout.block, "level": bout.level, "run": finished.run,
            "valid": finished.valid, "unsteady": finished.unsteady, "passed": finished.passed,
            "reasons": "; ".join(finished.reasons),
        }  # fmt: skip
        rows.append(of_run | {key: value for key, value in summary.items() if key not in of_run})
    return differences.with_cores(derived(pd.DataFrame(rows)))


def findings(match: Match, runs: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Return in sentences what the duel supports, what it could have found, and which runs were left out."""
    sentences = compare.findings(table)
    if len(table) and (table["verdict"] != "too few blocks").any():
        smallest = [
            f"{name} {beside}"
            for name, beside in compare.smallest(table, ("e2e_excess_p50_s", "e2e_excess_p99_s", "batch_p95_s"))
        ]
        if smallest:
            sentences.append(f"Smallest detectable change: {listed(smallest)}.")
    for side in SIDES:
        of_side = runs[runs["side"] == side]
        unsteady = int(of_side["unsteady"].astype(bool).sum())
        why = left_out(int((~of_side["valid"].astype(bool)).sum()) - unsteady, unsteady)
        if why:
            sentences.append(f"Of {count(len(of_side), 'run')} of {side} {why}.")
        missed = int((of_side["valid"].astype(bool) & ~of_side["passed"].astype(bool)).sum())
        if missed:
            sentences.append(f"{count(missed, 'run').capitalize()} of {side} missed an objective.")
    planned = {(bout.block, bout.level) for bout in match.order}
    both = [set(zip(rows["block"], rows["level"], strict=True)) for rows in (_believed(runs, side) for side in SIDES)]
    apart = len(planned - (both[0] & both[1]))
    if apart:
        sentences.append(
            f"{count(apart, 'pair').capitalize()} of {len(planned)} {'is' if apart == 1 else 'are'} left out: "
            "one side has no valid run."
        )
    return sentences


def _believed(runs: pd.DataFrame, side: str) -> pd.DataFrame:
    return runs[(runs["side"] == side) & runs["valid"].astype(bool)]


def _levels(match: Match) -> pd.DataFrame:
    factors = {bout.level: bout.factors for bout in match.order}
    words = [", ".join(phrase(name, value) for name, value in of_level.items()) for of_level in factors.values()]
    return pd.DataFrame({"level": list(factors), "words": words})


@svg.defaults()
def _render(match: Match, runs: pd.DataFrame, table: pd.DataFrame, sentences: list[str]) -> str:
    drawing, _ = compare.differences_figure(table)
    a, b = (match.versions[side].text for side in SIDES)
    rows = [
        {
            **{name: row[name] for name in ("side", "block", "level", "run", "valid", "unsteady", "passed", "reasons")},
            "cells": [_seconds(row.get(key)) for key in ("e2e_excess_p50_s", "e2e_excess_p99_s", "batch_p95_s")],
        }
        for row in pages.records(runs)
    ]
    return pages.render(
        "duel.html",
        title="A duel",
        versions={side: _shown(match.versions[side]) for side in SIDES},
        findings=sentences,
        multiple=compare.multiple(table),
        figures=compare.figure_rows(table),
        drawing=svg.inline(drawing),
        csv="differences.csv",
        runs=rows,
        design=match.design,
        command=command("experiments", "duel", a, b),
    )


def _shown(version: Version) -> str:
    commit = str(version.code.get("commit"))[:12]
    changed = {True: " with changes", False: "", None: ", changed or not"}[version.code.get("dirty")]
    return f"{version.text} (commit {commit}{changed})"


def _seconds(value: Any) -> str:
    return seconds(float(value)) if isinstance(value, int | float) else seconds(math.nan)
