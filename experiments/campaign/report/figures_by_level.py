"""The figures of a campaign that have a line, a bar or a cell a level instead of dots: spectrum, hops, faults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.campaign.report.figures import stacked
from experiments.campaign.report.levels import Layout, of_level
from experiments.report.figures import Drawing
from experiments.report.svg import BLUE, GREEN, GREY, INK, MUTED, ORANGE, PAPER, PURPLE, canvas, nothing, render

_NINES = {0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.9999: "99.99 %"}
HOP_GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "send, accept, append": (PURPLE, ("send_delay", "accept", "append")),
    "buffer wait": (ORANGE, ("buffer_wait",)),
    "micro-batch": (BLUE, ("micro_batch",)),
    "publish to screen": (GREEN, ("publish", "cluster", "subscriber", "network")),
}
"""The hops as the figure groups them; the trigger wait, which outweighs all others, stands apart."""
FAULTS = {
    "lost": "reactions lost",
    "duplicated": "reactions counted twice",
    "altered": "reactions altered",
    "differing": "counts unlike the recount",
    "deliveries_missing": "deliveries missing",
    "deliveries_duplicate": "deliveries doubled",
}


def spectrum_figure(spectra: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw latency by percentile of each level with its floor, and below it the distance between the two.

    `spectra`: rows of floor.spectrum with the `level` and `label` they belong to.
    """
    if spectra.empty:
        return nothing("spectrum", "No valid run with enough reactions for a percentile spectrum"), spectra
    shown = [level for level in plan.levels["level"] if (spectra["level"] == level).any()]
    labels = dict(zip(plan.levels["level"], plan.levels["label"], strict=True))
    figure, (above, below) = canvas(5.6, 2, (1, 1), share_x=True)
    last = spectra.groupby("level", sort=False)["quantile"].max()
    # Floors are equal where they begin and pass the median alike; the longest one then stands for all.
    starts = (
        spectra[spectra["quantile"].isin([0.0, 0.5])]
        .groupby("level")["floor_s"]
        .agg(lambda s: str(s.round(6).tolist()))
    )
    same = starts.nunique() == 1
    furthest = float(-np.log10(1 - last.max()))
    lost = False
    if same:
        rows = spectra[spectra["level"] == last.idxmax()]
        above.plot(
            -np.log10(1 - rows["quantile"]), rows["floor_s"], color=GREY, dashes=(4, 2), lw=1.4, label="latency floor"
        )
    for number, level in enumerate(shown):
        rows = spectra[spectra["level"] == level]
        x = -np.log10(1 - rows["quantile"].to_numpy(dtype=np.float64))
        finite = np.isfinite(rows["observed_s"].to_numpy(dtype=np.float64))
        lost |= not finite.all()
        style: dict[str, Any] = _style(number, len(shown), plan)
        above.plot(x[finite], rows["observed_s"][finite], **style, label=labels[level])
        below.plot(x[finite], rows["excess_s"][finite], **style)
        if not same:
            above.plot(x, rows["floor_s"], ":", color=style["color"], alpha=style["alpha"], lw=1.2)
    ticks = [q for q in _NINES if -math.log10(1 - q) <= furthest + 1e-9]
    below.set_xticks([-math.log10(1 - q) for q in ticks], [_NINES[q] for q in ticks])
    below.set_xlim(0, furthest * 1.02)
    above.set_ylim(bottom=0)
    below.set_ylim(bottom=min(0.0, float(spectra["excess_s"].min())))
    above.set_ylabel("latency, s" if same else "latency, s\n(dotted: its floor)")
    below.set_ylabel("above the floor, s")
    below.set_xlabel("share of (reaction, client) pairs at most this late, stretched towards the slowest")
    if lost:
        below.text(0.99, 0.04, "a line ends where the rest never arrived", transform=below.transAxes, ha="right",
                   color=ORANGE)  # fmt: skip
    legend = above.legend(title=plan.label, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelcolor=INK,
                 fontsize=8.5, title_fontsize=8.5, alignment="left")  # fmt: skip
    legend.get_title().set_color(MUTED)
    return render(figure, "spectrum", "End-to-end latency by percentile for each level, with the floor"), spectra


def hops_figure(valid: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw the mean journey of each level, hop by hop, averaged over its runs; the trigger wait stands apart."""
    names = [name for _, hops in HOP_GROUPS.values() for name in hops] + ["trigger_wait"]
    rows = []
    for level, label in zip(plan.levels["level"], plan.levels["label"], strict=True):
        for name in names:
            values = of_level(valid, level, f"hop_{name}_mean_ms")
            mean = float(values.mean()) if len(values) else math.nan
            rows.append({"level": level, "label": label, "hop": name, "mean_ms": mean, "runs": len(values)})
    data = pd.DataFrame(rows, columns=["level", "label", "hop", "mean_ms", "runs"])
    means = data.pivot_table("mean_ms", "level", "hop", sort=False).reindex(plan.levels["level"])
    if data["mean_ms"].notna().sum() == 0:
        return nothing("hops", "No valid run in which a reaction reached a client"), data
    figure, (axes, apart) = _side_by_side(1.15 + 0.3 * len(means))
    rows_at = np.arange(len(means))
    left = np.zeros(len(means))
    for label, (colour, hops) in HOP_GROUPS.items():
        width = means[list(hops)].sum(axis=1).to_numpy(dtype=np.float64)
        width = np.nan_to_num(np.maximum(width, 0))
        axes.barh(rows_at, width, left=left, height=0.66, color=colour, ec=PAPER, lw=0.6, label=label)
        left += width
    for row, total in enumerate(left):
        if total > 0:
            axes.annotate(f"{total:,.0f}", (total, row), (4, 0), textcoords="offset points", va="center", color=INK)
    wait = means["trigger_wait"].to_numpy(dtype=np.float64)
    apart.barh(rows_at, np.nan_to_num(wait) / 1000, height=0.66, color=GREY)
    for row, value in enumerate(wait):
        if math.isfinite(value):
            note = f"{value / 1000:.2f}"
            apart.annotate(note, (value / 1000, row), (4, 0), textcoords="offset points", va="center", color=MUTED)
    axes.set_yticks(rows_at, list(plan.levels["label"]))
    apart.set_yticks([])
    axes.set_ylabel(plan.label)
    axes.set_xlim(0, left.max() * 1.12)
    axes.set_xlabel("mean of each hop, ms")
    apart.set_xlim(0, np.nanmax(wait) / 1000 * 1.35)
    apart.set_xlabel("trigger wait, s")
    for panel in (axes, apart):
        panel.set_ylim(len(means) - 0.4, -0.6)
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, labelcolor=INK, handlelength=0.9, handleheight=0.9)
    return render(figure, "hops", "The mean journey by level, hop by hop, with the trigger wait apart"), data


def faults_figure(valid: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw how many reactions, counts and deliveries went wrong in all valid runs of a level; zero is right."""
    known = valid.assign(differing=valid["oracle_cells"] - valid["oracle_equal"]) if len(valid) else valid
    rows = [
        {"level": level, "label": label, "fault": name, "number": int(known.loc[known["level"] == level, name].sum())}
        for level, label in zip(plan.levels["level"], plan.levels["label"], strict=True)
        for name in FAULTS
        if len(known) and (known["level"] == level).any()
    ]
    data = pd.DataFrame(rows, columns=["level", "label", "fault", "number"])
    if data.empty:
        return nothing("faults", "No valid run to check"), data
    place = {level: i for i, level in enumerate(plan.levels["level"])}
    figure, (axes,) = canvas(2.7)
    for cell in data.to_dict("records"):
        at = (place[cell["level"]], list(FAULTS).index(cell["fault"]))
        wrong = cell["number"] > 0
        axes.text(
            *at,
            f"{cell['number']:,}",
            ha="center",
            va="center",
            color=PAPER if wrong else GREEN,
            fontweight="bold" if wrong else "normal",
            bbox={"boxstyle": "round,pad=0.35", "fc": ORANGE, "ec": "none"} if wrong else None,
        )
    axes.set_xlim(-0.5, len(place) - 0.5)
    axes.set_ylim(len(FAULTS) - 0.5, -0.5)
    axes.set_yticks(range(len(FAULTS)), list(FAULTS.values()))
    axes.set_xticks(range(len(place)), [stacked(label) for label in plan.levels["label"]])
    axes.set_xlabel(plan.label)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    return render(
        figure, "faults", "Faults found in all valid runs of each level: conservation, oracle, delivery"
    ), data


def _side_by_side(height_in: float) -> tuple[Figure, list[Axes]]:
    figure, panels = canvas(height_in, 2, (1, 1))
    grid = figure.add_gridspec(1, 2, width_ratios=[3, 1])
    for column, panel in enumerate(panels):
        panel.set_subplotspec(grid[0, column])
    return figure, panels


def _style(number: int, of: int, plan: Layout) -> dict[str, Any]:
    """Levels of a quantity are one colour, growing stronger; others are told apart by colour and dashes."""
    if plan.numeric:
        return {"color": BLUE, "alpha": 0.4 + 0.6 * (number + 1) / of, "lw": 1.1 + 1.1 * (number + 1) / of}
    colours = (BLUE, ORANGE, GREEN, PURPLE)
    return {"color": colours[number % 4], "alpha": 1.0, "dashes": ((), (5, 1.5), (1.5, 1.5))[number // 4 % 3]}
