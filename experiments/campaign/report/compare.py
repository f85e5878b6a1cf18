"""The comparison of two campaigns: as text for the terminal, and as a page that loads nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import files
from experiments.campaign.report import capacity_comparison
from experiments.campaign.report.capacity import Found
from experiments.campaign.report.differences import FIGURES, compare, context
from experiments.report import format as forms
from experiments.report import pages, svg
from experiments.report.figures import Drawing
from experiments.report.format import NBSP, between, count, in_unit, number, upper
from experiments.report.svg import BLUE, GREY, MUTED, PAPER, canvas, nothing, render
from experiments.stats.paired import FEWEST_BLOCKS
from experiments.stats.percentiles import WINDOWS_BEYOND
from pipeline.shell import command, path_word

_MARKS = {
    "supported": "●",
    "hint": "◐",
    "not supported": "○",
    "alike": "=",
    "too few blocks": "·",
    "too few windows": "·",
}


def main_text(a_dir: Path, b_dir: Path) -> str:
    """Return the comparison as text for a terminal. Raises RunFileError for a missing or damaged campaign."""
    lines = [f"A  {_path(a_dir)}", f"B  {_path(b_dir)}", ""]
    lines += [f"! {sentence}" for sentence in context(a_dir, b_dir)]
    found = capacity_comparison.searches(a_dir, b_dir)
    if found is not None:
        return "\n".join([*lines, "", *capacity_comparison.findings(found)]).replace(NBSP, " ")
    table = compare(a_dir, b_dir)
    lines += ["", *findings(table), ""]
    for level, rows in table.groupby("words", sort=False):
        lines.append(str(level))
        for row in rows.to_dict("records"):
            change = f"{_change(row)} ({_range(row)})"
            beside = f"; smallest detectable {smallest}" if (smallest := _smallest(row)) else ""
            lines.append(
                f"  {_MARKS[row['verdict']]} {row['name']:<32}{in_unit(row['a'], row['unit']):>18}"
                f"{in_unit(row['b'], row['unit']):>18}   {change}{beside}"
            )
    legend = "   ".join(f"{mark} {verdict}" for verdict, mark in _MARKS.items())
    lines += ["", f"Columns: A, B, B against A (95 % interval over blocks). {legend}", "", multiple(table)]
    return "\n".join(lines).replace(NBSP, " ")


def comparable(a_dir: Path, b_dir: Path) -> bool:
    """Return whether there is anything to compare. Raises RunFileError for a missing or damaged campaign."""
    found = capacity_comparison.searches(a_dir, b_dir)
    return not compare(a_dir, b_dir).empty if found is None else capacity_comparison.comparable(found)


@svg.defaults()
def write(a_dir: Path, b_dir: Path, out: Path) -> Path:
    """Write the comparison as a page, its data as CSV beside it; return the page's path.

    `out` is that path, or a directory in which the page is named after both campaigns.
    """
    if out.is_dir():
        out = out / f"compare-{a_dir.name}-{b_dir.name}.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    found = capacity_comparison.searches(a_dir, b_dir)
    data, shown = _levels(compare(a_dir, b_dir)) if found is None else _capacities(found)
    files.to_csv(data, out.with_suffix(".csv"))
    text = pages.render(
        "compare.html",
        title=f"{a_dir.name} against {b_dir.name}",
        a=_path(a_dir),
        b=_path(b_dir),
        command=command("experiments", "compare", path_word(_path(a_dir)), path_word(_path(b_dir))),
        context=context(a_dir, b_dir),
        csv=out.with_suffix(".csv").name,
        **shown,
    )
    files.write_text(out, text)
    return out


def _levels(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the data of a comparison level by level, and the values for its page."""
    drawing, data = differences_figure(table)
    rows = figure_rows(table)
    return data, {
        "findings": findings(table),
        "multiple": multiple(table),
        "figures": rows,
        "drawing": svg.inline(drawing),
    }


def figure_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the tables of a page, one for each figure, with a row of texts per level."""
    return [
        {
            "name": name,
            "rows": [
                {
                    **row,
                    "a": in_unit(row["a"], row["unit"]),
                    "b": in_unit(row["b"], row["unit"]),
                    "change": _change(row),
                    "range": _range(row),
                    "absolute": _absolute(row),
                    "smallest": _smallest(row),
                    "mark": _MARKS[row["verdict"]],
                }
                for row in pages.records(table[table["key"] == key])
            ],
        }
        for key, (name, _) in FIGURES.items()
        if (table["key"] == key).any()
    ]


def _capacities(found: Mapping[str, Found]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the data of a comparison of two searches, and the values for its page."""
    data = capacity_comparison.table(found)
    return data, {"findings": capacity_comparison.findings(found), "capacities": pages.records(data)}


def findings(table: pd.DataFrame) -> list[str]:
    """Return in sentences which differences the runs support, which are hints, and which they do not support."""
    if table.empty:
        return ["There is nothing to compare: no level has valid runs in both campaigns."]
    sentences = [
        f"The {_difference(FIGURES[str(key)][0], rows)}."
        for key, rows in table[table["verdict"] == "supported"].groupby("key", sort=False)
    ]
    if not sentences:
        sentences = ["No difference is supported."]
    hints = [
        f"{FIGURES[str(key)][0]} with {', '.join(rows['words'])}"
        for key, rows in table[table["verdict"] == "hint"].groupby("key", sort=False)
    ]
    if hints:
        sentences.append(f"Only a hint of a difference: {'; '.join(hints)}.")
    for verdict, start in (("not supported", "No difference is supported in"), ("alike", "Equal in every run")):
        names = [name for key, (name, _) in FIGURES.items() if _all(table, key, verdict)]
        if names and (verdict == "alike" or len(sentences) > 1 or sentences[0] != "No difference is supported."):
            sentences.append(f"{start}: {', '.join(names)}.")
    sparse = [name for key, (name, _) in FIGURES.items() if _all(table, key, "too few windows")]
    if sparse:
        sentences.append(
            f"Shown and not judged, as fewer than {number(WINDOWS_BEYOND)} windows lie beyond the percentile: "
            f"{', '.join(sparse)}."
        )
    few = table.loc[table["verdict"] == "too few blocks", "words"].drop_duplicates()
    if len(few):
        sentences.append(
            f"Too few blocks in which both sides have a valid run (fewer than {number(FEWEST_BLOCKS)}), so that no "
            f"interval is stated: {'; '.join(few)}."
        )
    return sentences


def smallest(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return the name of each figure of `keys` without a supported difference, with the smallest detectable one."""
    found = []
    for key in keys:
        sizes = [text for row in table[table["key"] == key].to_dict("records") if (text := _smallest(row))]
        if sizes:
            found.append((FIGURES[key][0], " and ".join(dict.fromkeys(sizes))))
    return found


def multiple(table: pd.DataFrame) -> str:
    """Return how the number of comparisons is corrected for; "" if there were none."""
    made = int(table["p"].notna().sum())
    if not made:
        return ""
    were = f"{count(made, 'comparison')} {'was' if made == 1 else 'were'} made"
    return (
        f"{upper(were)}, each paired by block. A difference is called supported if its 95 % interval leaves “no "
        "effect” out and it also passes Holm's correction for the number of comparisons (at most a 5 % chance of a "
        "single false one among all). If only the interval leaves it out, it is called a hint. The smallest detectable "
        "effect is the one that as many blocks with this scatter would have supported in 80 % of cases."
    )


def differences_figure(table: pd.DataFrame) -> Drawing:
    """Draw each ratio with its interval in per cent of A, filled where it is supported."""
    shown = table[table["ratio"].notna()]
    if shown.empty:
        return nothing("differences", "No ratio to draw"), table
    keys = [key for key in FIGURES if (shown.loc[shown["verdict"] != "alike", "key"] == key).any()]
    if not keys:
        return nothing("differences", "Every figure is alike in every run"), table
    levels = list(shown["words"].drop_duplicates())
    heights = [0.62 + 0.22 * len(levels)] * len(keys)
    figure, panels = canvas(sum(heights) + 0.3, len(keys), heights, share_x=True)
    for axes, key in zip(panels, keys, strict=True):
        for row in shown[shown["key"] == key].to_dict("records"):
            at = levels.index(row["words"])
            sure = row["verdict"] == "supported"
            colour = BLUE if row["verdict"] in ("supported", "hint") else GREY
            low, middle, high = (100 * (row[name] - 1) for name in ("ratio_low", "ratio", "ratio_high"))
            if math.isfinite(low) and math.isfinite(high):
                axes.plot([low, high], [at, at], color=colour, lw=2.2, alpha=0.6)
            axes.plot([middle], [at], "o", color=colour, mfc=colour if sure else PAPER, ms=6)
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yticks(range(len(levels)), levels)
        axes.set_ylim(len(levels) - 0.5, -0.5)
        axes.set_title(FIGURES[key][0], loc="left", fontsize=9)
        axes.grid(visible=False, axis="y")
    panels[-1].set_xlabel("B above (right) or below (left) A, % of A")
    return render(figure, "differences", "Differences of B to A in per cent of A, with intervals"), table


def _difference(name: str, rows: pd.DataFrame) -> str:
    """Return by how much a figure differs, level by level, grouped by direction."""
    parts = []
    for higher in (True, False):
        same = [row for row in rows.to_dict("records") if _higher(row) is higher]
        if same:
            levels = ", ".join(f"with {row['words']} by {_size(row)}" for row in same)
            parts.append(f"{'higher' if higher else 'lower'} in B {levels}")
    return f"{name} is {'; '.join(parts)}"


def _higher(row: Mapping[Any, Any]) -> bool:
    return bool(row["ratio"] > 1 if math.isfinite(row["ratio"]) else row["difference"] > 0 or row["b"] > row["a"])


def _size(row: Mapping[Any, Any]) -> str:
    """Return a supported effect without its sign: "8 % (3 to 13 %; 12 ms, 5 to 19 ms)"."""
    absolute = f"; {_absolute(row)}" if _absolute(row) else ""
    return f"{_change(row).lstrip('+−')} ({_range(row)}{absolute if math.isfinite(row['ratio']) else ''})"


def _change(row: Mapping[Any, Any]) -> str:
    """Return the effect: a ratio in per cent, else a difference."""
    if math.isfinite(row["ratio"]):
        return _signed(row["ratio"] - 1)
    return forms.difference(row["difference"], row["unit"], signed=True)


def _range(row: Mapping[Any, Any]) -> str:
    if math.isfinite(row["ratio_low"]):
        low, high = _signed(row["ratio_low"] - 1), _signed(row["ratio_high"] - 1)
    elif math.isfinite(row["low"]) and not math.isfinite(row["ratio"]):
        low, high = (forms.difference(row[name], row["unit"], signed=True) for name in ("low", "high"))
    else:
        return "no interval"
    return between(low, high, low)


def _absolute(row: Mapping[Any, Any]) -> str:
    """Return the difference with its interval, "" without one."""
    if not math.isfinite(row["low"]):
        return ""
    middle, low, high = (
        forms.difference(row[name], row["unit"], signed=True) for name in ("difference", "low", "high")
    )
    return f"{middle}, {between(low, high, low)}"


def _smallest(row: Mapping[Any, Any]) -> str:
    """Return the smallest detectable effect of a comparison that found none, "" for others."""
    if row["verdict"] not in ("not supported", "hint") or not math.isfinite(row["detectable"]):
        return ""
    if math.isfinite(row["ratio"]):
        return f"{(row['detectable'] - 1) * 100:.2g}{NBSP}%"
    return forms.difference(row["detectable"], row["unit"])


def _signed(share: float) -> str:
    if share == 0:
        return f"0{NBSP}%"
    text = f"{abs(share) * 100:.1f}" if abs(share) < 0.0995 else f"{abs(share) * 100:.0f}"
    return f"{'−' if share < 0 else '+'}{text}{NBSP}%"


def _path(directory: Path) -> str:
    """Return a directory as typed from the working directory."""
    here = Path.cwd()
    return str(directory.relative_to(here) if directory.is_relative_to(here) else directory)


def _all(judged: pd.DataFrame, key: str, verdict: str) -> bool:
    rows = judged[judged["key"] == key]
    return len(rows) > 0 and bool((rows["verdict"] == verdict).all())
