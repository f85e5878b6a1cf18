"""The figures of a campaign: each function returns (SVG text, the DataFrame behind it, to be saved as CSV).

Where runs are compared, each run is a dot, the bar is their median, and the band its bootstrap interval. Spectrum, hops
and faults have one line, bar or cell per level instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from experiments.analysis.batches import Drift
from experiments.campaign.report.estimates import estimates, of_level
from experiments.campaign.report.levels import Layout
from experiments.report.figures import Drawing
from experiments.report.format import rounded, whole
from experiments.report.svg import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    RULE,
    canvas,
    label_log,
    nothing,
    render,
)
from experiments.stats import usl
from experiments.stats.bootstrap import FEWEST_RUNS
from pipeline.errors import SettingError

_LABEL_SHARE = 0.06  # of an axis: the least that the name of a level takes
_NINES = {0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.9999: "99.99 %"}
HOP_GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "send, accept, append": (PURPLE, ("send_delay", "accept", "append")),
    "buffer wait": (ORANGE, ("buffer_wait",)),
    "micro-batch": (BLUE, ("micro_batch",)),
    "publish to screen": (GREEN, ("publish", "cluster", "subscriber", "network")),
}
"""The hops as the figure groups them; the trigger wait, longer than all others, has an axis of its own."""
FAULTS = {
    "lost": "reactions lost",
    "duplicated": "reactions counted twice",
    "altered": "reactions altered",
    "differing": "counts that differ from the recount",
    "deliveries_missing": "deliveries missing",
    "deliveries_duplicate": "deliveries doubled",
}


def excess_figure(valid: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw the median's and the p99's excess over the floor against the levels."""
    keys = {"e2e_excess_p50_s": (BLUE, "median", -1.0), "e2e_excess_p99_s": (ORANGE, "p99", 1.0)}
    data = estimates(valid, plan.levels, keys)
    if not _measured(data):
        return nothing("excess", "No valid run with enough reactions for a percentile"), data
    figure, (axes,) = canvas(3.5)
    for key, (colour, label, aside) in keys.items():
        _runs(axes, valid, plan, data, key, colour, label, aside=aside)
    _levels(axes, plan)
    axes.set_ylim(0, _above(data) * 1.15)
    axes.set_ylabel("latency above the floor, s")
    _legend(axes, 2)
    return render(figure, "excess", "Latency above the floor by level: every run, median and interval"), data


def headroom_figure(valid: pd.DataFrame, plan: Layout, limit: float | None) -> Drawing:
    """Draw the 95th percentile of the micro-batch time as a share of the trigger interval, with its objective."""
    data = estimates(valid, plan.levels, ["headroom"])
    if not _measured(data):
        return nothing("headroom", "No valid run with a measured micro-batch"), data
    figure, (axes,) = canvas(2.9)
    _runs(axes, valid, plan, data, "headroom", BLUE, "p95 of B over T", scale=100)
    top = 100 * _above(data)
    if limit is not None:
        axes.axhline(limit * 100, color=ORANGE, dashes=(4, 2), lw=1.2)
        _beside(axes, limit * 100, f"objective\n{limit * 100:g} %", ORANGE)
        top = max(top, limit * 100)
    _levels(axes, plan)
    axes.set_ylim(0, top * 1.15)
    axes.set_ylabel("micro-batch time B,\n% of the trigger interval T")
    return render(figure, "headroom", "Micro-batch time over trigger interval by level"), data


def accuracy_figure(valid: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw representation error with its bound, and the total-variation distance, against the levels."""
    keys = {"representation_error": (BLUE, "representation error"), "tv_distance": (ORANGE, "distance of the mixes")}
    data = estimates(valid, plan.levels, [*keys, "representation_bound"])
    if not _measured(data):
        return nothing("accuracy", "No valid run in which anything was shown"), data
    figure, panels = canvas(4.7, 2, (1, 1), share_x=True)
    for axes, (key, (colour, label)) in zip(panels, keys.items(), strict=True):
        _runs(axes, valid, plan, data, key, colour, label, scale=100)
        top = 100 * _above(data[data["key"] == key])
        if key == "representation_error":
            bounds = data[data["key"] == "representation_bound"]
            at = bounds["level"].map(_places(plan))
            axes.plot(at, bounds["median"] * 100, "_", color=GREY, ms=15, mew=2, label="the policy's own bound")
            top = max(top, 100 * _above(bounds))
            _legend(axes, 2)
        _levels(axes, plan, named=key == "tv_distance")
        axes.set_ylim(0, top * 1.15)
    panels[0].set_ylabel("representation\nerror, %")
    panels[1].set_ylabel("total variation, shown\nagainst counted, %")
    return render(figure, "accuracy", "Representation error and total-variation distance by level"), data


def order_figure(residuals: pd.DataFrame, drifts: dict[str, Drift]) -> Drawing:
    """Draw each valid run's distance from its level's mean in the order of execution, with the blocks marked.

    `residuals`: `position, block, level`, and the distance in ms under each key of `drifts`, whose slopes are
    in ms per run.
    """
    if residuals.empty:
        return nothing("order", "No level with two valid runs"), residuals
    words = {"e2e_excess_p50_s": "median excess,\nms from its level", "batch_p95_s": "p95 of B,\nms from its level"}
    figure, panels = canvas(2.0 * len(drifts) + 0.5, len(drifts), [1.0] * len(drifts), share_x=True)
    for axes, (key, drift), colour in zip(panels, drifts.items(), (BLUE, GREEN), strict=False):
        most = max(float(residuals[key].abs().max()), 1.0) * 1.45
        for number, (block, rows) in enumerate(residuals.groupby("block")):
            first, last = rows["position"].min(), rows["position"].max()
            if not number % 2:
                axes.axvspan(first - 0.5, last + 0.5, color=RULE, alpha=0.35, lw=0)
            if axes is panels[0]:
                axes.text(
                    (first + last) / 2,
                    most * 0.97,
                    f"{block}" if number else f"block {block}",
                    ha="center",
                    va="top",
                    color=MUTED,
                    fontsize=8,
                )
        axes.axhline(0, color=GREY, lw=1)
        axes.plot(residuals["position"], residuals[key], "o", color=colour, ms=4.5)
        if math.isfinite(drift.slope_ms_per_min):
            middle = residuals["position"] - residuals["position"].median()
            axes.plot(
                residuals["position"], drift.slope_ms_per_min * middle + residuals[key].median(), color=colour, lw=1.2
            )
            axes.annotate(
                f"{drift.slope_ms_per_min:+.1f} ms per run "
                f"(95 %: {drift.low_ms_per_min:+.1f} to {drift.high_ms_per_min:+.1f})",
                (0, 0), (4, 3), xycoords="axes fraction", textcoords="offset points", color=colour,
            )  # fmt: skip
        axes.set_ylim(-most, most)
        axes.set_ylabel(words.get(key, key))
    panels[-1].set_xlabel("run, in the order of execution")
    panels[-1].set_xlim(residuals["position"].min() - 0.6, residuals["position"].max() + 0.6)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return render(figure, "order", "Distance of each run from its level's mean, in run order"), residuals


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
    # Floors with the same start and the same median are equal; the longest one is then drawn for all.
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
    below.set_xlabel("share of (reaction, client) pairs within this latency, stretched towards the slowest")
    if lost:
        below.text(0.99, 0.04, "a line ends where the rest never arrived", transform=below.transAxes, ha="right",
                   color=ORANGE)  # fmt: skip
    legend = above.legend(title=plan.label, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelcolor=INK,
                 fontsize=8.5, title_fontsize=8.5, alignment="left")  # fmt: skip
    legend.get_title().set_color(MUTED)
    return render(figure, "spectrum", "End-to-end latency by percentile for each level, with the floor"), spectra


def hops_figure(valid: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw the mean journey of each level, averaged over its runs; the trigger wait has its own axis."""
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
            axes.annotate(rounded(total), (total, row), (4, 0), textcoords="offset points", va="center", color=INK)
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
    """Draw the number of wrong reactions, counts and deliveries in all valid runs of a level."""
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
            whole(cell["number"]),
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


def scalability_figure(valid: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw the throughput of a closed loop against its users, with the Universal Scalability Law fitted to the runs.

    In the frame, rows with the `key` usl are the fit: `median` is its throughput at the level, `low` and `high` are
    empty.
    """
    data = estimates(valid, plan.levels, ["accepted_per_s"])
    if not _measured(data):
        return nothing("scalability", "No valid run with a throughput"), data
    figure, (axes,) = canvas(3.5)
    try:
        law = fitted(valid, plan)
    except SettingError as error:
        axes.annotate(f"no law fitted: {error}", (0, 0), (4, 4), xycoords="axes fraction", textcoords="offset points",
                      color=MUTED, fontsize=8, wrap=True)  # fmt: skip
    else:
        x = plan.levels["x"].to_numpy(dtype=np.float64)
        along = np.geomspace(x.min(), x.max(), 200)
        axes.plot(along, usl.throughput(along, law.lambda_, law.sigma, law.kappa), color=GREY, dashes=(4, 2), lw=1.4,
                  label="Universal Scalability Law")  # fmt: skip
        at = usl.throughput(x, law.lambda_, law.sigma, law.kappa)
        rows = plan.levels[["level", "label"]].assign(key="usl", runs=len(valid), median=at)
        data = pd.concat([data, rows], ignore_index=True)
    _runs(axes, valid, plan, data, "accepted_per_s", BLUE, "measured")
    _levels(axes, plan)
    axes.set_ylim(0, _above(data) * 1.15)
    axes.set_ylabel("accepted, reactions/s")
    _legend(axes, 2)
    return render(figure, "scalability", "Throughput of the closed loop against its users"), data


def fitted(valid: pd.DataFrame, plan: Layout) -> usl.Usl:
    """Return the law that fits the throughput of every valid run. Raises SettingError if there are too few levels."""
    x = valid["level"].map(_places(plan))
    return usl.fit(x.tolist(), valid["accepted_per_s"].tolist())


def _runs(
    axes: Axes,
    valid: pd.DataFrame,
    plan: Layout,
    data: pd.DataFrame,
    key: str,
    colour: str,
    label: str,
    *,
    scale: float = 1,
    aside: float = 0,
) -> None:
    """Draw one figure of every run as a dot, with the median and its interval of each level.

    `aside` moves the marks to the left or right, so that two figures of a level are side by side.
    """
    of_key = data[data["key"] == key]
    centre = np.array([_aside(place, aside, plan) for place in of_key["level"].map(_places(plan))])
    middle = of_key["median"].to_numpy(dtype=np.float64) * scale
    finite = np.isfinite(middle)
    if plan.numeric:
        axes.plot(centre[finite], middle[finite], color=colour, lw=1, alpha=0.5)
    for row, at in zip(of_key.to_dict("records"), centre, strict=True):
        if row["runs"] >= FEWEST_RUNS and math.isfinite(row["high"]):
            axes.plot([at, at], [row["low"] * scale, row["high"] * scale], color=colour, lw=7, alpha=0.25,
                      solid_capstyle="butt")  # fmt: skip
        values = of_level(valid, row["level"], key)
        for at_run, value in zip(_spread(at, len(values), plan), values, strict=True):
            if math.isfinite(value):
                axes.plot([at_run], [value * scale], "o", color=colour, ms=4, alpha=0.85, mec=PAPER, mew=0.4)
            else:
                axes.plot([at_run], [0.98], "^", color=colour, ms=6, transform=axes.get_xaxis_transform())
                axes.annotate("never", (at_run, 0.98), (5, -3), xycoords=axes.get_xaxis_transform(), color=colour,
                              textcoords="offset points", fontsize=8)  # fmt: skip
    axes.plot(centre[finite], middle[finite], "_", color=colour, ms=13, mew=2, label=label)


def _spread(at: float, runs: int, plan: Layout) -> list[float]:
    """Return positions side by side for the runs of a level, so that equal runs do not hide each other."""
    return [_aside(at, (i - (runs - 1) / 2) * min(0.8, 4 / max(runs, 1)), plan) for i in range(runs)]


def _aside(at: float, steps: float, plan: Layout) -> float:
    """Return the position `steps` beside `at`; a step is less than a hundredth of the axis."""
    x = plan.levels["x"].to_numpy(dtype=np.float64)
    if plan.log:
        return float(at * (x.max() / x.min()) ** (0.009 * steps))
    return float(at + 0.009 * max(float(np.ptp(x)), 1.0) * steps)


def _places(plan: Layout) -> dict[str, float]:
    return dict(zip(plan.levels["level"], plan.levels["x"], strict=True))


def _levels(axes: Axes, plan: Layout, *, named: bool = True) -> None:
    """Set up the axis of the levels."""
    x = plan.levels["x"].to_numpy(dtype=np.float64)
    if plan.log:
        axes.set_xscale("log")
        room = max((x.max() / x.min()) ** 0.06, 1.1)
        axes.set_xlim(x.min() / room, x.max() * room)
        if _crowded(np.log(x)):
            label_log(axes, "x")
        else:
            axes.minorticks_off()
            axes.set_xticks(x, list(plan.levels["label"]))
    else:
        room = max(0.06 * float(np.ptp(x)), 0.5 if not plan.numeric else 0.1 * max(abs(float(x.max())), 1.0))
        axes.set_xlim(x.min() - room, x.max() + room)
        if plan.numeric and _crowded(x):
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        else:
            axes.set_xticks(x, [stacked(label) for label in plan.levels["label"]])
    axes.grid(visible=False, axis="x")
    if named:
        axes.set_xlabel(plan.label)


def _measured(data: pd.DataFrame) -> bool:
    return bool((data["runs"] > 0).any())


def _above(data: pd.DataFrame) -> float:
    values: list[float] = data[["median", "high", "most"]].to_numpy(dtype=np.float64).ravel().tolist()
    return max((value for value in values if math.isfinite(value)), default=1e-3) or 1e-3


def _beside(axes: Axes, level: float, text: str, colour: str) -> None:
    axes.annotate(text, (1, level), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                  fontsize=8.5, color=colour, annotation_clip=False)  # fmt: skip


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, labelcolor=INK,
                borderaxespad=0.1, handletextpad=0.3)  # fmt: skip


def _crowded(x: NDArray[np.float64]) -> bool:
    """Return whether levels are so close that their names would overlap; the axis then has round numbers."""
    return len(x) > 1 and bool(np.diff(np.sort(x)).min() < _LABEL_SHARE * np.ptp(x))


def stacked(label: str) -> str:
    """Return a level's label with one factor per line."""
    return label.replace(" · ", "\n")


def _side_by_side(height_in: float) -> tuple[Figure, list[Axes]]:
    figure, panels = canvas(height_in, 2, (1, 1))
    grid = figure.add_gridspec(1, 2, width_ratios=[3, 1])
    for column, panel in enumerate(panels):
        panel.set_subplotspec(grid[0, column])
    return figure, panels


def _style(number: int, of: int, plan: Layout) -> dict[str, Any]:
    """Return a level's line style: for a quantity one colour of rising strength, else its own colour and dashes."""
    if plan.numeric:
        return {"color": BLUE, "alpha": 0.4 + 0.6 * (number + 1) / of, "lw": 1.1 + 1.1 * (number + 1) / of}
    colof_key = (BLUE, ORANGE, GREEN, PURPLE)
    return {"color": colof_key[number % 4], "alpha": 1.0, "dashes": ((), (5, 1.5), (1.5, 1.5))[number // 4 % 3]}
