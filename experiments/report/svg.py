"""Matplotlib figures as SVG that belongs to its page: transparent, in its font and colours, light or dark.

Matplotlib draws in marker colours; `render` replaces them by `currentColor` and by CSS variables that the
report defines for each colour scheme. A figure opened alone has the same variables in its own <style>.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.report.format import grouped

INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0000a1", "#0000a2", "#0000a3", "#0000a4", "#0000a5"
_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    **{f"#0000a{i}": f"var(--series-{i})" for i in range(1, 6)},
}
# Blue, orange, green, purple, grey: distinct with any common colour blindness, and by lightness in print.
LIGHT = (
    "--ink:#1d2327;--muted:#5b656d;--rule:#dfe3e6;--paper:#fdfdfb;--series-1:#0b66b0;--series-2:#c8560c;"
    "--series-3:#0a7d62;--series-4:#9a4a83;--series-5:#a3abb2"
)
DARK = (
    "--ink:#e6e9eb;--muted:#a0abb4;--rule:#343b41;--paper:#15191c;--series-1:#69b3f5;--series-2:#ff9d5e;"
    "--series-3:#4fcfae;--series-4:#e19bcb;--series-5:#67727a"
)
_STYLE = (
    f"<style>:root{{{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}"
    "svg{color:var(--ink);background:var(--paper);font-family:system-ui,sans-serif}</style>"
)
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "font.family": ["DejaVu Sans"],  # matplotlib's own, wider than the fonts it is shown in: nothing collides
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.8,
}


def canvas(
    height_in: float, rows: int = 1, ratios: Sequence[float] = (1.0,), *, share_x: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure 7.2 inches wide and its axes, one above the other with heights in `ratios`."""
    with defaults(_RC):
        figure = Figure(figsize=(7.2, height_in), layout="constrained")
        grid = figure.subplots(rows, 1, squeeze=False, sharex=share_x, height_ratios=list(ratios))
        return figure, list(grid[:, 0])


def render(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as SVG text whose ids begin with `name`; the same data give the same text.

    `alt` is the text that a screen reader reads aloud.
    """
    buffer = io.StringIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with defaults({**_RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, variable)
    text = re.sub(r"(font: [^;\"]*?[\d.]+px) 'DejaVu Sans'", r"\1 system-ui, sans-serif", text)
    text = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*;?", "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(r"<svg ([^>]*)>", rf'<svg role="img" aria-label="{label}" \1>{_STYLE}', text, count=1)


@contextmanager
def defaults(settings: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Draw with matplotlib's own defaults and `settings`, whatever the user's matplotlibrc says; also a decorator."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings or {})
        yield


def nothing(name: str, why: str) -> str:
    """Return the figure that replaces one without data, and says why."""
    figure, (axes,) = canvas(1.0)
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", color=MUTED)
    return render(figure, name, why)


def label_log(axes: Axes, which: str) -> None:
    """Label a log axis 0.1, 1, 10 … and, where that gives too few labels, 2 and 5 in between."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    axis.set_major_locator(FixedLocator([m * 10.0**d for d in decades for m in steps]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: grouped(value)))
    axis.set_view_interval(low, high, ignore=True)


def inline(svg: str) -> str:
    """Return the SVG for a page that defines the variables itself: without its style and fixed size."""
    svg = svg.replace(_STYLE, "")
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", svg, count=1)
