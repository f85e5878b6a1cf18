"""The figure of a search for capacity: the dose-response curve with its probes, as (SVG text, DataFrame behind it)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from experiments.campaign.report.capacity import Found
from experiments.campaign.report.levels import FACTORS
from experiments.report.figures import Drawing
from experiments.report.format import four_digits
from experiments.report.svg import BLUE, GREY, INK, MUTED, ORANGE, PAPER, canvas, label_log, nothing, render
from experiments.stats.capacity import FEWEST_PROBES, PASSING, Probe, passing

_OUTCOMES = {  # outcome: colour, marker, whether it is filled, its height in the figure
    "pass": (BLUE, "o", True, 1.0),
    "fail": (ORANGE, "s", False, 0.0),
    "INVALID": (GREY, "X", True, 0.5),
    "UNSTEADY": (GREY, "d", False, 0.5),
}
_CURVE_POINTS = 80
_ASIDE = 0.035  # of the height: between probes of nearly the same load, so that none hides another
_NEAR = 0.03  # of ln load


def dose_response_figure(found: Found) -> Drawing:
    """Draw each probe by load and outcome, the fitted probability of a pass with its 95 % band, and the capacity.

    The frame: a row per probe in the order of execution, `row` "probe" with `probe, load, outcome` (pass, fail,
    INVALID or UNSTEADY) and `why`, then rows "curve" with `load, low, passing, high`.
    """
    probes = pd.DataFrame(
        {
            "row": "probe",
            "probe": range(1, len(found.probes) + 1),
            "load": [probe.load for probe in found.probes],
            "outcome": [_outcome(probe) for probe in found.probes],
            "why": [probe.why for probe in found.probes],
        }
    )
    if probes.empty:
        return nothing("dose_response", "No load was probed yet"), probes
    figure, (axes,) = canvas(3.6)
    data = probes
    if found.capacity.probes >= FEWEST_PROBES:
        curve = _curve(found, float(probes["load"].min()), float(probes["load"].max()))
        axes.fill_between(curve["load"], curve["low"], curve["high"], color=BLUE, alpha=0.14, lw=0)
        axes.plot(curve["load"], curve["passing"], color=BLUE, lw=1.6, label="chance of a pass, fitted")
        data = pd.concat([probes, curve], ignore_index=True)
    for outcome, (colour, marker, filled, height) in _OUTCOMES.items():
        rows = probes[probes["outcome"] == outcome].sort_values("load")
        if len(rows):
            axes.plot(rows["load"], _spread(rows["load"].to_numpy(dtype=np.float64), height), marker, color=colour,
                      mfc=colour if filled else PAPER, ms=6, label=outcome, ls="none", zorder=3)  # fmt: skip
    axes.axhline(PASSING, color=MUTED, dashes=(4, 2), lw=1)
    known = found.capacity
    if known.estimate is not None:
        low, high = known.low or axes.get_xlim()[0], known.high or axes.get_xlim()[1]
        axes.plot([low, high], [PASSING, PASSING], color=INK, lw=4, alpha=0.5, solid_capstyle="butt")
        axes.plot([known.estimate], [PASSING], "D", color=INK, ms=6, zorder=4)
        axes.annotate(f"capacity\n{four_digits(float(f'{known.estimate:.3g}'))}", (known.estimate, PASSING), (-8, -8),
                      textcoords="offset points", va="top", ha="right", color=INK, fontsize=8.5)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(probes["load"].min() / 1.15, probes["load"].max() * 1.15)
    label_log(axes, "x")
    axes.set_ylim(-0.25, 1.25)
    axes.set_yticks([0, 0.5, PASSING, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_ylabel("runs that meet every objective")
    axes.set_xlabel(f"{FACTORS.get(found.search.factor, (found.search.factor,))[0]} (log)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, labelcolor=INK, handletextpad=0.3)
    return render(figure, "dose_response", f"Probes by load and outcome, and the fitted curve: {found.headline}"), data


def _outcome(probe: Probe) -> str:
    if probe.valid:
        return "pass" if probe.passed else "fail"
    return "UNSTEADY" if probe.unsteady else "INVALID"


def _curve(found: Found, least: float, most: float) -> pd.DataFrame:
    loads = np.geomspace(least / 1.1, most * 1.1, _CURVE_POINTS)
    low, middle, high = passing(found.search, found.probes, loads)
    return pd.DataFrame({"row": "curve", "load": loads, "low": low, "passing": middle, "high": high})


def _spread(loads: np.ndarray[tuple[int], np.dtype[np.float64]], height: float) -> list[float]:
    """Return the height of each probe: those of nearly the same load are stacked away from the curve."""
    away = -1 if height == 0 else 1
    stacked: list[float] = []
    for number, load in enumerate(loads):
        near = number and np.log(load / loads[number - 1]) < _NEAR
        stacked.append(stacked[-1] + away * _ASIDE if near else height)
    return stacked
