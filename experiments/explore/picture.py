"""A session's state as one piece of HTML: figures, latency by window, swarm, counts."""

from __future__ import annotations

import math
from html import escape

from experiments.explore import swarm
from experiments.explore.seen_windows import Seen, quantile_s
from experiments.explore.state import KEPT, State
from experiments.report.svg import BLUE, DARK, GREY, LIGHT, MUTED, ORANGE, canvas, defaults, inline, render

BARS = 8
# A notebook's theme may differ from the system's.
_STYLE = (
    "<style>"
    f".emostream{{{LIGHT};color:var(--ink);background:var(--paper);border:1px solid var(--rule);border-radius:10px;"
    "padding:18px 20px;max-width:760px;font:14px/1.45 system-ui,sans-serif}"
    f"@media(prefers-color-scheme:dark){{body:not([data-jp-theme-light]):not([data-vscode-theme-kind]) .emostream"
    f"{{{DARK}}}}}"
    f'body[data-jp-theme-light="false"] .emostream,body[data-vscode-theme-kind*="dark"] .emostream{{{DARK}}}'
    ".emostream svg{display:block;width:100%;height:auto}"
    ".emostream .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:14px 20px}"
    ".emostream .tile b{display:block;font-size:24px;font-weight:600;line-height:1.2;font-variant-numeric:tabular-nums}"
    ".emostream .tile,.emostream .note{color:var(--muted);font-size:13px}.emostream .tile b{color:var(--ink)}"
    ".emostream h4{margin:20px 0 6px;font-size:14px;font-weight:600;color:var(--ink)}"
    ".emostream .note{margin:4px 0 0}"
    ".emostream .bars{display:grid;grid-template-columns:auto 1fr auto;gap:3px 10px;align-items:center;"
    "font-variant-numeric:tabular-nums}"
    ".emostream .bars i{display:block;height:12px;border-radius:0 3px 3px 0;background:var(--series-1)}"
    ".emostream .bars span:nth-child(3n){text-align:right;color:var(--muted)}"
    # The page's own font has some emoji in black and white, and would be used first.
    ".emostream .swarm,.emostream .bars span:nth-child(3n+1)"
    "{font-family:'Apple Color Emoji','Segoe UI Emoji','Noto Color Emoji',sans-serif}"
    ".emostream .swarm text{animation:emostream-in .5s ease-out backwards}"
    "@keyframes emostream-in{from{opacity:0}}"
    "@media(prefers-reduced-motion:reduce){.emostream .swarm text{animation:none}}"
    "</style>"
)


def picture(state: State) -> str:
    """Return a session's picture as HTML: its last window, and the latency of the windows that are kept."""
    if not state.windows:
        return f'{_STYLE}<div class="emostream"><p class="note">{escape(_awaited(state))}</p></div>'
    last = state.windows[-1]
    parts = [
        f'<div class="tiles">{"".join(_tile(*tile) for tile in _tiles(state))}</div>',
        "<h4>From tap to screen, window by window</h4>",
        inline(chart(state)),
        f'<p class="note">{_about_floor(state)}</p>',
        f"<h4>On screen: the last window&rsquo;s {_number(last.representatives, 'representative')}</h4>",
        swarm.draw(last.reactions, last.event_id),
        _fewer(last),
        f"<h4>Counted in it: {_number(last.total, 'reaction')}</h4>",
        _bars(last),
    ]
    return f'{_STYLE}<div class="emostream">{"".join(parts)}</div>'


@defaults()
def chart(state: State) -> str:
    """Draw the median and the slowest reaction of each kept window, each with its floor."""
    figure, (axes,) = canvas(2.5)
    windows, waits = state.windows, state.waits
    at = range(1 - len(windows), 1)
    highest = waits.quantile_s(1.0)
    for values, floor_s, colour, words in (
        ([window.slowest_s for window in windows], waits.quantile_s(1.0), ORANGE, "slowest"),
        ([window.median_s for window in windows], waits.quantile_s(0.5), BLUE, "median"),
    ):
        axes.plot(at, values, "o-", color=colour, ms=4)
        axes.axhline(floor_s, color=colour, dashes=(4, 3), lw=1.1)
        known = [value for value in values if math.isfinite(value)]
        highest = max([highest, *known])
        if known:
            axes.annotate(
                f"{words}\n{known[-1]:.2f} s",
                (1, known[-1]),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                annotation_clip=False,
            )
    axes.set_xlim(0.5 - KEPT, 0.5)
    axes.set_xticks([1 - KEPT, -20, -10, 0], [f"{KEPT - 1} windows ago", "20", "10", "last"])
    axes.set_ylim(0, highest * 1.12)
    axes.set_ylabel("latency, s")
    axes.grid(visible=False, axis="x")
    axes.tick_params(colors=MUTED, color=GREY, length=3)
    label = (
        f"Latency of the last {_number(len(windows), 'window')}; median of the last: {_seconds(windows[-1].median_s)}"
    )
    return render(figure, "explore", label)


def _tiles(state: State) -> list[tuple[str, str]]:
    waits = state.waits
    p50_s, p99_s = (quantile_s(state.windows, q) for q in (0.5, 0.99))
    few = "" if math.isfinite(p99_s) else "; needs 1,000 reactions"
    return [
        (_seconds(p50_s), f"median of {_number(len(state.windows), 'window')}; floor {waits.quantile_s(0.5):.2f} s"),
        (_seconds(p99_s), f"p99; floor {waits.quantile_s(0.99):.2f} s{few}"),
        (f"{state.counted:,}", f"counted, of {state.accepted:,} accepted"),
        (f"{state.refused:,}", "refused or unanswered"),
    ]


def _tile(figure: str, words: str) -> str:
    return f'<div class="tile"><b>{figure}</b>{words}</div>'


def _bars(window: Seen) -> str:
    ranked = sorted(window.reactions, key=lambda reaction: (-reaction.count, reaction.emoji_type))
    rows = [
        f"<span>{escape(one.emoji_type)}</span>"
        f'<span><i style="width:{100 * one.count / ranked[0].count:.1f}%"></i></span>'
        f"<span>{one.count:,} → {one.representatives:,}</span>"
        for one in ranked[:BARS]
    ]
    rest = ranked[BARS:]
    more = (
        f" Not drawn: {_number(len(rest), 'type')} with {_number(sum(one.count for one in rest), 'reaction')}."
        if rest
        else ""
    )
    return f'<div class="bars">{"".join(rows)}</div><p class="note">Reactions → representatives on screen.{more}</p>'


def _fewer(window: Seen) -> str:
    drawn = sum(swarm.shown(window.reactions).values())
    if drawn >= window.representatives:
        return ""
    return f'<p class="note">Drawn: {drawn:,} of {window.representatives:,}, each type with its share.</p>'


def _awaited(state: State) -> str:
    return {
        "idle": "Nothing is running. Press Start.",
        "starting": "Kafka, Spark and the other stages are starting; that takes about half a minute.",
        "running": f"Reactions are on their way; a window arrives every {state.parameters.trigger_s:g} s.",
        "draining": "The last reactions are on their way.",
        "ended": "The session was stopped before a window arrived.",
        "failed": "The session failed before a window arrived.",
    }[state.phase]


def _about_floor(state: State) -> str:
    words = (
        "Dashed: the floor, the time that flush and trigger alone take. A window holds "
        f"{state.parameters.trigger_s:g} s of reactions; its first one has waited longest."
    )
    return (
        f"{words} The window in which the load began is not full, and may be below it."
        if state.arrived <= KEPT
        else words
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if math.isfinite(value) else "–"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
