"""The policies compared, in figures and sentences: each figure is (SVG text, the DataFrame behind it)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.report.figures import Drawing
from experiments.report.format import count, fine_percent, whole
from experiments.report.svg import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    canvas,
    defaults,
    label_log,
    nothing,
    render,
)

# Each has its own mark: in print, colours alone may not be enough.
_LOOKS = {"ceil": (BLUE, "o"), "floor": (ORANGE, "s"), "carry": (GREEN, "D"), "stochastic": (PURPLE, "^")}
# Errors below are drawn at the lower edge of their log scale, in %.
_LEAST = 0.01


@defaults()
def error_figure(sweep: pd.DataFrame) -> Drawing:
    """Draw errors.sweep: error in single windows and in total against density, with the allowed bounds."""
    if not (sweep["counted"] > 0).any():
        return nothing("policies", "Nothing was counted"), sweep
    figure, (above, below) = canvas(5.6, 2, (1, 1), share_x=True)
    data = sweep.sort_values("mean_count")
    for axes, name, what in (
        (above, "per_cell", "in single windows"),
        (below, "in_total", "in total, type by type"),
    ):
        bounds = data[data["policy"] == "ceil"]
        axes.plot(bounds["mean_count"], 100 * bounds[f"{name}_bound"], color=GREY, dashes=(4, 2), lw=1.2)
        for policy, (colour, mark) in _LOOKS.items():
            rows = data[data["policy"] == policy]
            shown = np.maximum(100 * rows[name], _LEAST)
            axes.plot(rows["mean_count"], shown, mark, ls="-", color=colour, ms=5, mec=PAPER, mew=0.6, label=policy)
        axes.set_yscale("log")
        axes.set_ylabel(f"error {what},\n% of the reactions (log)")
    carried = data[data["policy"] == "carry"]
    below.plot(
        carried["mean_count"], np.maximum(100 * carried["in_total_bound"], _LEAST), color=GREEN, dashes=(1, 2), lw=1.2
    )
    _note(above, "dashed: the most that a policy allows")
    _note(below, "dashed: allowed to ceil and floor, dotted: to carry")
    for axes in (above, below):
        axes.set_xscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 2.2)
        label_log(axes, "y")
    label_log(below, "x")
    below.set_xlabel("reactions of a type in a window that has any, mean of a load (log)")
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, labelcolor=INK)
    return render(figure, "policies", "Error of each representative policy from sparse to dense traffic"), sweep


@defaults()
def course_figure(course: pd.DataFrame, trigger_s: float) -> Drawing:
    """Draw errors.course: the size of the swarm so far against that of the crowd so far."""
    if course.empty:
        return nothing("course", "Nothing was counted"), course
    data = course.assign(minute=(course["window"] + 1) * trigger_s / 60)
    figure, (axes,) = canvas(3.2)
    axes.axhline(1, color=GREY, dashes=(4, 2), lw=1.2)
    for policy, (colour, _) in _LOOKS.items():
        rows = data[data["policy"] == policy]
        axes.plot(rows["minute"], rows["ratio"], color=colour)
        axes.annotate(
            f"{policy} {rows['ratio'].iloc[-1]:.2f}",
            (1, rows["ratio"].iloc[-1]),
            # Carry ends just below 1 and stochastic about it: their names must not collide.
            (5, {"stochastic": 5, "carry": -5}.get(policy, 0)),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=colour,
            annotation_clip=False,
        )
    axes.set(xlim=(0, data["minute"].max()), ylim=(0, None))
    axes.set_ylabel("stood for ÷ counted, so far")
    axes.set_xlabel("minutes since the first reaction")
    return render(figure, "course", "How much of the crowd each policy has shown, over the time of the trace"), data


def _note(axes: Axes, text: str) -> None:
    axes.annotate(
        text,
        (1, 1),
        (-2, -2),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8.5,
        color=MUTED,
    )


def findings(errors: pd.DataFrame, subject: str, group_size: int) -> list[str]:
    """Return errors.errors of `subject` ("The trace") in sentences: how each policy changes the picture."""
    rows = {str(row["policy"]): row for row in errors.to_dict("records")}
    total = rows["ceil"]
    if not total["counted"]:
        return [f"{subject} counts nothing."]
    sentences = [
        f"{subject} has {whole(total['counted'])} reactions of {count(total['types'], 'type')}, "
        f"{total['mean_count']:.1f} of a type in a window that has any."
    ]
    sentences += [
        f"`{policy}` shows {count(row['representatives'], 'representative')}, a swarm {1 + row['bias']:.2f} times the "
        f"crowd; type by type it is off by {fine_percent(row['in_total'])} of the reactions in the end "
        f"({fine_percent(row['in_total_bound'])} allowed), leaves {fine_percent(row['hidden_types'])} of the types "
        f"unseen and shifts {fine_percent(row['tv_distance'])} of the mix."
        for policy, row in rows.items()
    ]
    best = min(rows, key=lambda policy: float(rows[policy]["in_total"]))
    whole_windows = [f"`{policy}`" for policy, row in rows.items() if not row["hidden_cells"]]
    broken = [f"`{policy}`" for policy, row in rows.items() if row["over_bound"]]
    kept = f"{' and '.join(broken)} broke what it allows" if broken else "every policy kept its bounds in every cell"
    return [
        *sentences,
        f"Closest to the crowd in the end is `{best}`; {' and '.join(whole_windows) or 'no policy'} alone hides "
        f"nothing that happened in a window. With groups of {group_size}, {kept}.",
    ]
