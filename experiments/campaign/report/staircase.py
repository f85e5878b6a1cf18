"""The figure of a search for capacity: the staircase of its probes, as (SVG text, the DataFrame behind it)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.ticker import MaxNLocator

from experiments.campaign.report.levels import FACTORS
from experiments.report.figures import Drawing
from experiments.report.format import four_digits
from experiments.report.svg import BLUE, GREY, INK, MUTED, ORANGE, PAPER, canvas, label_log, nothing, render
from experiments.stats.capacity import Capacity, Probe, Search

_OUTCOMES = {  # outcome: colour, marker, whether it is filled
    "pass": (BLUE, "o", True),
    "fail": (ORANGE, "s", False),
    "INVALID": (GREY, "X", True),
}


def staircase_figure(search: Search, probes: Sequence[Probe], found: Capacity) -> Drawing:
    """Draw the load and outcome of each probe, in the order of execution, and the interval of the capacity.

    The frame: `probe, load, outcome` (pass, fail or INVALID) and `why`.
    """
    data = pd.DataFrame(
        {
            "probe": range(1, len(probes) + 1),
            "load": [probe.load for probe in probes],
            "outcome": ["INVALID" if not probe.valid else "pass" if probe.passed else "fail" for probe in probes],
            "why": [probe.why for probe in probes],
        }
    )
    if data.empty:
        return nothing("staircase", "No load was probed yet"), data
    figure, (axes,) = canvas(3.4)
    axes.step(data["probe"], data["load"], where="mid", color=GREY, lw=1.2)
    for outcome, (colour, marker, filled) in _OUTCOMES.items():
        rows = data[data["outcome"] == outcome]
        if len(rows):
            face = colour if filled else PAPER
            axes.plot(
                rows["probe"],
                rows["load"],
                marker,
                color=colour,
                mfc=face,
                ms=6.5,
                label=outcome,
                ls="none",
                zorder=3,  # the interval's lines pass behind
            )
    low, high = found.highest_pass, found.lowest_fail
    if low is not None and high is not None:
        axes.axhspan(low, high, color=BLUE, alpha=0.14, lw=0)
    for value, text, colour in ((low, "highest pass", BLUE), (high, "lowest fail", ORANGE)):
        if value is None:
            continue
        axes.axhline(value, color=colour, dashes=(4, 2), lw=1)
        below = value == low
        axes.annotate(
            f"{text}\n{four_digits(value)}",
            (1, value),
            (5, -2 if below else 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="top" if below else "bottom",
            color=colour,
            fontsize=8.5,
            annotation_clip=False,
        )
    axes.set_yscale("log")
    axes.set_ylim(data["load"].min() / 1.25, data["load"].max() * 1.25)
    label_log(axes, "y")
    axes.set_xlim(0.5, len(data) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"{FACTORS.get(search.factor, (search.factor,))[0]} (log)")
    axes.set_xlabel("probe, in the order of execution")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor=INK, handletextpad=0.2)
    if low is None and high is None:
        axes.text(0.5, 0.5, "no load could be measured", transform=axes.transAxes, ha="center", color=MUTED)
    return render(figure, "staircase", f"The probes of the search: {found.why}"), data
