"""The figures of a run: each function returns (SVG text, the DataFrame behind it, to be saved as CSV)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from experiments.analysis.batches import Drift
from experiments.analysis.floor import Waits
from experiments.report.format import hop_name, ms, whole
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
    label_log,
    nothing,
    render,
)
from experiments.units import NS_PER_S

Drawing = tuple[str, pd.DataFrame]
_NINES = {0.0: "0 %", 0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.9999: "99.99 %"}
_HOP_COLOURS = {
    **dict.fromkeys(("send_delay", "accept", "append"), PURPLE),
    "buffer_wait": ORANGE,
    "trigger_wait": GREY,
    "micro_batch": BLUE,
    **dict.fromkeys(("publish", "cluster", "subscriber", "network"), GREEN),
}


def spectrum_figure(spectrum: pd.DataFrame) -> Drawing:
    """Draw floor.spectrum: latency against percentile with the floor in the same axes, and the excess."""
    figure, (axes,) = canvas(3.5)
    if spectrum.empty:
        return nothing("spectrum", "Too few reactions for a percentile spectrum"), spectrum
    x = -np.log10(1 - spectrum["quantile"].to_numpy())
    observed = spectrum["observed_s"].to_numpy()
    finite = np.isfinite(observed)
    over = spectrum["excess_s"].to_numpy()
    arrived = np.isfinite(over)
    axes.plot(x, spectrum["floor_s"], color=GREY, dashes=(4, 2), label="floor that flush and trigger impose")
    axes.plot(x[finite], observed[finite], color=BLUE, label="observed, tap to screen")
    axes.plot(x[arrived], over[arrived], color=ORANGE, label="excess of each pair over its own floor")
    for q in (0.5, 0.9, 0.99, 0.999):
        at = -math.log10(1 - q)
        if at > x[-1] + 1e-9:
            continue
        row = int(np.abs(x - at).argmin())
        for values, colour in ((observed, BLUE), (over, ORANGE)):
            if not np.isfinite(values[row]):
                continue
            axes.plot([at], [values[row]], "o", ms=4.5, color=colour, mec=PAPER)
            axes.annotate(
                f"{values[row]:.2f} s", (at, values[row]), (0, 7), textcoords="offset points", ha="right", color=colour
            )
    top = max(float(observed[finite].max()) if finite.any() else 0.0, float(spectrum["floor_s"].max()))
    if not finite.all():
        first = x[~finite][0]
        axes.axvspan(first, x[-1], color=ORANGE, alpha=0.18, lw=0)
        axes.text(x[-1] * 0.995, top, "never arrived", color=ORANGE, ha="right")
    shown = [q for q in _NINES if -math.log10(1 - q) <= x[-1] + 1e-9]
    axes.set_xticks([-math.log10(1 - q) for q in shown], [_NINES[q] for q in shown])
    axes.set(xlim=(0, x[-1] * 1.02), ylim=(0, top * 1.13))
    axes.set_xlabel("share of (reaction, client) pairs within this latency, stretched towards the slowest")
    axes.set_ylabel("latency, s")
    axes.legend(loc="center right", frameon=False, labelcolor=INK)
    return render(figure, "spectrum", "End-to-end latency and its excess by percentile, with the floor"), spectrum


def excess_figure(due: pd.DataFrame) -> Drawing:
    """Draw excess.Excess.due: the median excess of the reactions due at each trigger; partial intervals are open."""
    finite = due[np.isfinite(due["p50_s"].to_numpy(dtype=np.float64))]
    if finite.empty:
        return nothing("excess", "No reaction reached a client"), due
    figure, (axes,) = canvas(2.6)
    axes.axhline(0, color=INK, lw=0.8)
    minute = (finite["due_ns"] - due["due_ns"].min()) / (60 * NS_PER_S)
    whole = finite["whole"].to_numpy(dtype=bool)
    axes.plot(minute[whole], finite["p50_s"][whole] * 1000, "o", color=ORANGE, ms=4)
    axes.plot(minute[~whole], finite["p50_s"][~whole] * 1000, "o", color=ORANGE, ms=4, mfc=PAPER)
    never = due[np.isinf(due["p50_s"].to_numpy(dtype=np.float64))]
    for moment in (never["due_ns"] - due["due_ns"].min()) / (60 * NS_PER_S):
        axes.axvline(moment, color=ORANGE, alpha=0.4)
    axes.set_ylim(bottom=min(0.0, float(finite["p50_s"].min()) * 1000))
    axes.set_xlabel("time of the trigger, minutes")
    axes.set_ylabel("median excess, ms")
    return render(figure, "excess", "Median excess of the reactions due at each trigger"), due


def hops_figure(hops: pd.DataFrame) -> Drawing:
    """Draw hops.hop_table: the mean journey as a stacked bar, then p50 to p99 of each hop on a log scale."""
    if not (hops["values"] > 0).any():
        return nothing("hops", "No reaction reached a client"), hops
    figure, (bar, axes) = canvas(4.9, 2, (1, 5.2))
    left = 0.0
    for hop, mean in zip(hops["hop"], hops["mean_ms"] / 1000, strict=True):
        width = max(float(mean), 0.0)
        bar.barh(0, width, left=left, color=_HOP_COLOURS[hop], edgecolor=PAPER, linewidth=0.6, height=0.7)
        left += width
    at = 0.0
    for hop, mean in zip(hops["hop"], hops["mean_ms"] / 1000, strict=True):
        if mean > 0.16 * left:
            bar.text(
                at + mean / 2,
                0,
                f"{hop_name(hop)} {mean:.2f} s",
                ha="center",
                va="center",
                color=INK if hop == "trigger_wait" else PAPER,
            )
        at += max(float(mean), 0.0)
    bar.set(xlim=(0, left * 1.01), yticks=[])
    bar.set_title(f"The mean journey: {left:.2f} s, hop by hop, s", loc="left", fontsize=9)
    bar.grid(visible=False)
    bar.spines["left"].set_visible(False)
    edge = 0.05
    for row, hop in enumerate(hops.to_dict("records")):
        low, high = _first(hop["p50_ms"], hop["mean_ms"]), _first(hop["p99_ms"], hop["most_ms"])
        colour = _HOP_COLOURS[hop["hop"]]
        axes.plot([max(low, edge), max(high, edge)], [row, row], color=colour, lw=2.2, alpha=0.55)
        axes.plot([max(low, edge)], [row], "o", color=colour, ms=6)
        axes.plot([max(high, edge)], [row], "o", color=colour, ms=6, mfc=PAPER)
        note = f"{ms(low)} ms  →  {ms(high)} ms" + ("" if math.isfinite(hop["p99_ms"]) else " (largest)")
        note += f" · {whole(hop['negative'])} negative" if hop["negative"] else ""
        axes.annotate(
            note,
            (1, row),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=MUTED,
            fontsize=8.5,
            annotation_clip=False,
        )
    axes.set_yticks(range(len(hops)), [hop_name(name) for name in hops["hop"]])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=edge * 0.8)
    label_log(axes, "x")
    axes.set_xlabel("p50 (filled) to p99 (open) of each hop, ms, log scale")
    axes.grid(visible=False, axis="y")
    return render(figure, "hops", "Duration of each hop of the journey: mean, median and p99"), hops


def drift_figure(windows: pd.DataFrame, waits: Waits, trend: Drift) -> Drawing:
    """Draw latency.EndToEnd.windows in run order: latency per window, and the time from trigger to screen."""
    if windows.empty:
        return nothing("drift", "No measured window"), windows
    data = windows.assign(
        minute=(windows["trigger_ns"] - windows["trigger_ns"].min()) / (60 * NS_PER_S),
        floor_p50_s=waits.quantile_s(0.5),
        floor_p99_s=waits.quantile_s(0.99),
        # The measured phase starts and ends within a trigger interval.
        whole=[0 < row < len(windows) - 1 for row in range(len(windows))],
    )
    figure, (top, bottom) = canvas(4.6, 2, (1.25, 1), share_x=True)
    for name, colour, label in (("p99_s", ORANGE, "p99"), ("p50_s", BLUE, "median")):
        top.axhline(data[f"floor_{name}"].iloc[0], color=colour, dashes=(4, 2), lw=1, alpha=0.8)
        shown = data[np.isfinite(data[name])]
        whole = shown["whole"].to_numpy(dtype=bool)
        top.plot(shown["minute"][whole], shown[name][whole], "o", color=colour, ms=4, label=label)
        top.plot(shown["minute"][~whole], shown[name][~whole], "o", color=colour, ms=4, mfc=PAPER)
    top.set_ylabel("latency, s\n(dashed: floor)")
    top.set_ylim(0, _above([*data["p99_s"], waits.quantile_s(0.99)]) * 1.22)
    top.legend(loc="upper left", frameon=False, ncols=2, labelcolor=INK, borderaxespad=0.1, handletextpad=0.2)
    after = data["after_trigger_s"] * 1000
    bottom.plot(data["minute"], after, "o", color=GREEN, ms=4)
    if math.isfinite(trend.slope_ms_per_min):
        line = trend.slope_ms_per_min * (data["minute"] - data["minute"].median()) + after.median()
        bottom.plot(data["minute"], line, color=GREEN, lw=1.2)
        bottom.annotate(
            f"{trend.slope_ms_per_min:+.1f} ms per minute (95 %: {trend.low_ms_per_min:+.1f} "
            f"to {trend.high_ms_per_min:+.1f})",
            (0, 1),
            (4, -2),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            color=GREEN,
        )
    bottom.set_ylabel("trigger to\nscreen, ms")
    bottom.set_ylim(0, _above(after) * 1.3)
    bottom.set_xlabel("minutes since the first measured trigger")
    return render(figure, "drift", "Latency of each window in the order of the run"), data


def batches_figure(times: pd.DataFrame, trigger_s: float) -> Drawing:
    """Draw batches.batch_times against trigger interval and objective, warm-up hollow, on a log scale."""
    if times.empty:
        return nothing("batches", "Spark reported no micro-batch"), times
    data = times.assign(minute=(times["trigger_start_ns"] - times["trigger_start_ns"].min()) / (60 * NS_PER_S))
    figure, (axes,) = canvas(3.1)
    limit = min(0.6, 0.8 * trigger_s)
    for phases, face, words in (
        (("warm-up", "drain"), PAPER, "before or after the measurement"),
        (("measured",), BLUE, "measured"),
    ):
        rows = data[data["phase"].isin(phases)]
        axes.plot(rows["minute"], rows["batch_s"], "o", color=BLUE, mfc=face, ms=5, label=words)
    for level, colour, text in (
        (trigger_s, GREY, f"trigger\ninterval {trigger_s:g} s"),
        (limit, ORANGE, f"objective\nfor p95 {limit:g} s"),
    ):
        axes.axhline(level, color=colour, dashes=(4, 2), lw=1.2)
        axes.annotate(
            text,
            (1, level),
            (5, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=MUTED if colour == GREY else colour,
            annotation_clip=False,
        )
    axes.set_yscale("log")
    low = min(float(data["batch_s"].min()), limit)
    axes.set_ylim(low * 0.6, max(float(data["batch_s"].max()), trigger_s) * 1.7)
    label_log(axes, "y")
    axes.set_ylabel("micro-batch time B, s (log)")
    axes.set_xlabel("minutes since the first micro-batch")
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
        labelcolor=INK,
        borderaxespad=0.1,
        handletextpad=0.2,
    )
    return render(figure, "batches", "Time of each micro-batch against the trigger interval"), data


def types_table(cells: pd.DataFrame, group_size: int, most: int = 12) -> pd.DataFrame:
    """Return `emoji_type, count, representatives, counted_share, shown_share` of the `most` frequent types.

    The page draws it as HTML bars: the reader's fonts have emoji, Matplotlib's do not.
    """
    by_type = cells.groupby("emoji_type", as_index=False)[["count", "representatives"]].sum()
    by_type = by_type.sort_values(["count", "emoji_type"], ascending=[False, True], ignore_index=True)
    by_type["counted_share"] = by_type["count"] / max(int(by_type["count"].sum()), 1)
    by_type["shown_share"] = by_type["representatives"] / max(int(by_type["representatives"].sum()), 1)
    by_type["stand_for"] = by_type["representatives"] * group_size
    return by_type.head(most)


def _first(*values: float) -> float:
    return next((value for value in values if math.isfinite(value)), 0.0)


def _above(values: object) -> float:
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return max(float(finite.max()), 1e-3) if len(finite) else 1.0
