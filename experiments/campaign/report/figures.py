"""The figures of a campaign: each function returns (SVG text, the DataFrame behind it, to be saved as CSV).

Wherever runs are compared every run is a dot; the band is the bootstrap interval of their median, the bar in it
the median.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from experiments.analysis.batches import Drift
from experiments.campaign.report.levels import FEW_RUNS, Layout, estimates, of_level
from experiments.report.figures import Drawing
from experiments.report.svg import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RULE,
    canvas,
    label_log,
    nothing,
    render,
)
from experiments.stats import usl
from pipeline.errors import SettingError

_LABEL_SHARE = 0.06  # of an axis: what the name of a level takes at the least


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
    """Draw each valid run's distance from its level's mean in the order that happened, blocks marked.

    `residuals`: `position, block, level`, and the distance in ms under each key of `drifts`, whose slopes are
    in ms a run.
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
                f"{drift.slope_ms_per_min:+.1f} ms a run "
                f"(95 %: {drift.low_ms_per_min:+.1f} to {drift.high_ms_per_min:+.1f})",
                (0, 0), (4, 3), xycoords="axes fraction", textcoords="offset points", color=colour,
            )  # fmt: skip
        axes.set_ylim(-most, most)
        axes.set_ylabel(words.get(key, key))
    panels[-1].set_xlabel("run, in the order that happened")
    panels[-1].set_xlim(residuals["position"].min() - 0.6, residuals["position"].max() + 0.6)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return render(figure, "order", "Distance of each run from its level's mean, in run order"), residuals


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

    `aside` moves all of it to the left or right, so that two figures of a level stand side by side.
    """
    ours = data[data["key"] == key]
    centre = np.array([_aside(place, aside, plan) for place in ours["level"].map(_places(plan))])
    middle = ours["median"].to_numpy(dtype=np.float64) * scale
    finite = np.isfinite(middle)
    if plan.numeric:
        axes.plot(centre[finite], middle[finite], color=colour, lw=1, alpha=0.5)
    for row, at in zip(ours.to_dict("records"), centre, strict=True):
        if row["runs"] >= FEW_RUNS and math.isfinite(row["high"]):
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
    """The runs of a level side by side about its place, so that equal ones do not hide each other."""
    return [_aside(at, (i - (runs - 1) / 2) * min(0.8, 4 / max(runs, 1)), plan) for i in range(runs)]


def _aside(at: float, steps: float, plan: Layout) -> float:
    """A place some steps of under a hundredth of the axis beside `at`."""
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
    """Whether levels lie so close that their names would run into each other: round numbers then stand there."""
    return len(x) > 1 and bool(np.diff(np.sort(x)).min() < _LABEL_SHARE * np.ptp(x))


def stacked(label: str) -> str:
    """Return a level's label with each of its factors on a line."""
    return label.replace(" · ", "\n")


def scalability_figure(valid: pd.DataFrame, plan: Layout) -> Drawing:
    """Draw the throughput of a closed loop against its users, with the Universal Scalability Law fitted to the runs.

    The frame has the law's fit as rows of `key` usl: `median` is its throughput at the level, `low` and `high` empty.
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
    """Return the law that fits the throughput of every valid run; SettingError where there are too few levels."""
    x = valid["level"].map(_places(plan))
    return usl.fit(x.tolist(), valid["accepted_per_s"].tolist())
