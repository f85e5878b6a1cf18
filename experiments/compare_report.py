"""What a comparison of two campaigns reads like: on the terminal, and as a page that needs nothing from elsewhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import page, svg
from experiments.campaign_forms import between, slo_figure
from experiments.campaign_levels import FEW_RUNS
from experiments.compare import FIGURES, compare, context
from experiments.figures import Drawing
from experiments.svg import BLUE, GREY, MUTED, PAPER, canvas, nothing, render
from experiments.wording import NBSP, count, number

_MARKS = {"supported": "●", "hint": "◐", "not supported": "○", "too few runs": "·"}


def main_text(a_dir: Path, b_dir: Path) -> str:
    """Return the comparison as text for a terminal; raises SettingError for what is no campaign."""
    table = compare(a_dir, b_dir)
    lines = [f"A  {a_dir}", f"B  {b_dir}", ""]
    lines += [f"! {sentence}" for sentence in context(a_dir, b_dir)]
    lines += ["", *findings(table), ""]
    for level, rows in table.groupby("words", sort=False):
        lines.append(str(level))
        for row in rows.to_dict("records"):
            change = f"{_form(row['difference'], row['unit'], signed=True)} ({_range(row)})"
            lines.append(
                f"  {_MARKS[row['verdict']]} {row['name']:<32}{_form(row['a'], row['unit']):>18}"
                f"{_form(row['b'], row['unit']):>18}   {change}"
            )
    legend = "   ".join(f"{mark} {verdict}" for verdict, mark in _MARKS.items())
    lines += ["", f"Columns: A, B, B - A (95 % interval over runs). {legend}", "", multiple(table)]
    return "\n".join(lines).replace(NBSP, " ")


def write(a_dir: Path, b_dir: Path, out: Path) -> Path:
    """Write the comparison as a page to `out`, its data as CSV beside it; return the page's path."""
    table = compare(a_dir, b_dir)
    drawing, data = differences_figure(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    data.to_csv(out.with_suffix(".csv"), index=False)
    rows = [
        {
            "name": name,
            "rows": [
                {
                    **row,
                    "a": _form(row["a"], row["unit"]),
                    "b": _form(row["b"], row["unit"]),
                    "difference": _form(row["difference"], row["unit"], signed=True),
                    "range": _range(row),
                    "mark": _MARKS[row["verdict"]],
                }
                for row in page.records(table[table["key"] == key])
            ],
        }
        for key, (name, _) in FIGURES.items()
        if (table["key"] == key).any()
    ]
    text = page.render(
        "compare.html",
        title=f"{a_dir.name} against {b_dir.name}",
        a=str(a_dir),
        b=str(b_dir),
        findings=findings(table),
        context=context(a_dir, b_dir),
        multiple=multiple(table),
        figures=rows,
        drawing=svg.inline(drawing),
        csv=out.with_suffix(".csv").name,
    )
    out.write_text(text, encoding="utf-8")
    return out


def findings(table: pd.DataFrame) -> list[str]:
    """Return in sentences which differences the runs support, hint at, and do not support."""
    if table.empty:
        return ["There is nothing to compare: no level has valid runs in both campaigns."]
    told = []
    for verdict, start in (("supported", ""), ("hint", "A hint, no more: ")):
        for key, rows in table[table["verdict"] == verdict].groupby("key", sort=False):
            told.append(f"{start}{_difference(FIGURES[str(key)][0], rows)}.")
    judged = table[table["verdict"] != "too few runs"]
    if not (table["verdict"] == "supported").any() and len(judged):
        told.insert(0, "No difference is supported.")
    silent = [name for key, (name, _) in FIGURES.items() if _all(judged, key, "not supported")]
    if silent:
        told.append(f"That there is a difference the runs do not support for: {', '.join(silent)}.")
    few = table.loc[table["verdict"] == "too few runs", "words"].drop_duplicates()
    if len(few):
        told.append(f"Too few valid runs to tell (fewer than {number(FEW_RUNS)} on a side): {'; '.join(few)}.")
    return [sentence[0].upper() + sentence[1:] for sentence in told]


def multiple(table: pd.DataFrame) -> str:
    """Return how the number of comparisons is dealt with."""
    made = int(table["p"].notna().sum())
    excluded = int(table["verdict"].isin(["supported", "hint"]).sum())
    fewest = int(table[["runs_a", "runs_b"]].to_numpy().min()) if len(table) else 0
    text = (
        f"{count(made, 'comparison').capitalize()} {'was' if made == 1 else 'were'} made. Were there no difference at all, "
        f"about {max(made * 0.05, 0):.0f} of their 95 % intervals would leave zero out by chance, and more with few runs; "
        f"{number(excluded)} do. So a difference is called supported only if it also stands after Holm's correction for "
        "their number (at most a 5 % chance of a single false one among all), and a hint otherwise."
    )
    if fewest and fewest < 5:
        text += (
            f" Levels with {number(fewest)} runs on a side show only differences that are large against their scatter."
        )
    return text


def differences_figure(table: pd.DataFrame) -> Drawing:
    """Draw each difference with its interval in per cent of A's median, filled where it is supported."""
    shown = table[np.isfinite(table["difference"]) & (table["a"].abs() > 0) & np.isfinite(table["a"])]
    if shown.empty:
        return nothing("differences", "No difference to draw"), table
    keys = [key for key in FIGURES if (shown["key"] == key).any()]
    levels = list(shown["words"].drop_duplicates())
    heights = [0.62 + 0.22 * len(levels)] * len(keys)
    figure, panels = canvas(sum(heights) + 0.3, len(keys), heights, share_x=True)
    for axes, key in zip(panels, keys, strict=True):
        for row in shown[shown["key"] == key].to_dict("records"):
            at, scale = levels.index(row["words"]), 100 / abs(row["a"])
            sure = row["verdict"] == "supported"
            colour = BLUE if row["verdict"] in ("supported", "hint") else GREY
            if math.isfinite(row["low"]) and math.isfinite(row["high"]):
                axes.plot([row["low"] * scale, row["high"] * scale], [at, at], color=colour, lw=2.2, alpha=0.6)
            axes.plot([row["difference"] * scale], [at], "o", color=colour, mfc=colour if sure else PAPER, ms=6)
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yticks(range(len(levels)), levels)
        axes.set_ylim(len(levels) - 0.5, -0.5)
        axes.set_title(FIGURES[key][0], loc="left", fontsize=9)
        axes.grid(visible=False, axis="y")
    panels[-1].set_xlabel("B above (right) or below (left) A, % of A's median")
    return render(figure, "differences", "Differences of B to A in per cent of A, with intervals"), table


def _difference(name: str, rows: pd.DataFrame) -> str:
    """Say by how much the figure differs, level by level, those of one direction together."""
    parts = []
    for higher in (True, False):
        ours = [row for row in rows.to_dict("records") if (row["difference"] > 0) is higher]
        if ours:
            levels = ", ".join(f"with {row['words']} by {_size(row)}" for row in ours)
            parts.append(f"{'higher' if higher else 'lower'} in B {levels}")
    return f"the {name} is {'; '.join(parts)}"


def _size(row: dict[str, Any]) -> str:
    low, high = sorted((abs(row["low"]), abs(row["high"])))
    size = _form(abs(row["difference"]), row["unit"])
    relative = f", {abs(row['difference'] / row['a']) * 100:.0f}{NBSP}%" if row["a"] and row["unit"] != "share" else ""
    return f"{size} ({between(_form(low, row['unit']), _form(high, row['unit']), size)}{relative})"


def _range(row: dict[str, Any]) -> str:
    if not math.isfinite(row["low"]) and not math.isfinite(row["high"]):
        return "no interval"
    low, high = (_form(row[name], row["unit"], signed=True) for name in ("low", "high"))
    return between(low, high, low)


def _form(value: float, unit: str, *, signed: bool = False) -> str:
    sign = "−" if value < 0 else "+" if signed and value > 0 else ""
    size = abs(value)
    if unit in ("s", "share", ""):
        return sign + slo_figure(size, unit)
    if math.isnan(size):
        return "–"
    return f"{sign}{size:,.0f}{NBSP}{unit}" if size >= 100 else f"{sign}{size:.3g}{NBSP}{unit}"


def _all(judged: pd.DataFrame, key: str, verdict: str) -> bool:
    rows = judged[judged["key"] == key]
    return len(rows) > 0 and bool((rows["verdict"] == verdict).all())
