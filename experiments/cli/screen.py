"""What `emostream watch` draws in a terminal: the swarm that rises, the newest window's emoji, and what is connected.

A frame is a function of what arrived, the time and the size. No terminal is touched here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from experiments.explore import swarm
from pipeline.messages import TypeCount, Window
from pipeline.units import NS_PER_S

BARS = " ▏▎▍▌▋▊▉█"
STEPS = "▁▂▃▄▅▆▇█"
KEPT = 40
"""Windows of the history at the foot."""
WIDE = 60
"""From this many columns the swarm is beside the list, else below it."""
LIST_WIDTH = 30
LIST_ROWS_NARROW = 8
SWARM_ROWS_MIN = 4
ROOMY = 8
"""From this many rows there is a row at the foot, and an empty one at its top and below the first."""
EMOJI_WIDTH = 2
PLACE_WIDTH = EMOJI_WIDTH + 1
PLACES_PER_EMOJI = 4
RISE_S = 4.0
"""How long an emoji takes from the foot of the screen to its top."""
SPREAD_MIN_S, SPREAD_MAX_S = 0.5, 10.0

TITLE, DIM, ACCENT, GOOD, WARN = "bold", "dim", "magenta", "green", "bold yellow"


class Piece(NamedTuple):
    """Text at a column of a row, from 0. Pieces are placed by column, as terminals differ in how wide an emoji is."""

    column: int
    text: str
    style: str = ""


class Sprite(NamedTuple):
    """One emoji of the swarm: when it starts, and where across, from 0 to 1."""

    emoji_type: str
    start_s: float
    across: float


@dataclass
class State:
    """What `watch` has seen. Times are of a monotonic clock, seconds."""

    cluster: str = ""
    connected: bool = False
    reconnections: int = 0
    trouble: str = ""
    missed: bool = False
    window: Window | None = None
    received_s: float = 0.0
    windows: int = 0
    reactions: int = 0
    totals: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))
    sprites: list[Sprite] = field(default_factory=list)

    def opened(self) -> None:
        """Take note of a connection."""
        if self.trouble:
            self.reconnections += 1
        self.connected, self.trouble = True, ""

    def lost(self, reason: str) -> None:
        """Take note of a lost connection, or of a failed attempt."""
        self.connected, self.trouble = False, reason

    def take(self, window: Window, now_s: float, most: int) -> None:
        """Take a window; at most `most` emoji of it rise, spread over the time that a window lasts."""
        before, self.window = self.window, window
        lasts_s = (window.trigger_ns - before.trigger_ns) / NS_PER_S if before is not None else SPREAD_MIN_S
        spread_s = min(max(lasts_s, SPREAD_MIN_S), SPREAD_MAX_S)
        self.received_s = now_s
        self.cluster = window.cluster or self.cluster
        self.windows += 1
        self.reactions += window.total
        self.totals.append(window.total)
        rng = random.Random(window.event_id)
        rising = [sprite for sprite in self.sprites if sprite.start_s + RISE_S > now_s]
        new = [
            Sprite(emoji_type, now_s + rng.random() * spread_s, rng.random())
            for emoji_type, number in swarm.shown(window.reactions, most).items()
            for _ in range(number)
        ]
        self.sprites = rising + new


def frame(state: State, now_s: float, width: int, height: int) -> list[list[Piece]]:
    """Return the pieces of each of `height` rows; none leaves the `width` columns."""
    rows: list[list[Piece]] = [[] for _ in range(height)]
    if height < 1:
        return rows
    plan = _plan(width, height)
    rows[0] = _head(state, width)
    if plan.foot:
        rows[height - 1] = _foot(state, now_s, width)
    if state.window is None:
        _put_waiting(rows, plan.listed, width, state)
        return rows
    ranked = sorted(state.window.reactions, key=lambda each: (-each.count, each.emoji_type))
    _put_list(rows, plan.listed, *plan.list_columns, ranked)
    for row, place, emoji_type in _risen(state.sprites, now_s, plan):
        rows[plan.swarm[row]].append(Piece(plan.swarm_left + place * PLACE_WIDTH, emoji_type))
    return rows


def swarm_room(width: int, height: int) -> int:
    """Return how many emoji the swarm shows at most: a part of its places, so that it does not become a wall."""
    plan = _plan(width, height)
    return max(1, plan.places * len(plan.swarm) // PLACES_PER_EMOJI)


class _Plan(NamedTuple):
    """Where everything is: the rows and columns (from, width) of the list, the rows and places of the swarm."""

    listed: range
    list_columns: tuple[int, int]
    swarm: range
    swarm_left: int
    places: int
    foot: bool


def _plan(width: int, height: int) -> _Plan:
    """Put the swarm beside the list where there is room, else below it, else leave it out."""
    foot = height >= ROOMY
    body = range(2, height - 2) if foot else range(1, height)
    if width >= WIDE:
        left = LIST_WIDTH + 4
        return _Plan(body, (1, LIST_WIDTH), body, left, (width - left) // PLACE_WIDTH, foot)
    if len(body) < LIST_ROWS_NARROW + SWARM_ROWS_MIN:
        return _Plan(body, (0, width), body[:0], 0, 0, foot)
    cut = LIST_ROWS_NARROW + 1
    return _Plan(body[: cut - 1], (0, width), body[cut:], 0, width // PLACE_WIDTH, foot)


def _head(state: State, width: int) -> list[Piece]:
    mark, words, style = ("●", "live", GOOD) if state.connected else ("○", "reconnecting", WARN)
    if not state.connected and not state.trouble:
        words = "connecting"
    if width < WIDE:
        return _fitting(width, Piece(0, mark, style), Piece(2, words if width >= 16 else "", style))
    pieces = [Piece(1, "EmoStream", TITLE), Piece(12, f"{mark} {words}", style)]
    right = f"cluster {state.cluster}" if state.cluster else ""
    if state.reconnections:
        right = f"reconnected {state.reconnections}×   {right}"
    if state.missed:
        right = f"windows were missed   {right}"
    return _fitting(width, *pieces, Piece(width - len(right) - 1, right, DIM))


def _foot(state: State, now_s: float, width: int) -> list[Piece]:
    if state.trouble:
        # The reason comes first, and details after a colon.
        short = state.trouble.partition(": ")[0]
        return [Piece(0, _cut(short, width), WARN) if width < WIDE else Piece(1, _cut(state.trouble, width - 2), WARN)]
    window = state.window
    if window is None:
        return []
    age = f"{max(0.0, now_s - state.received_s):.0f} s ago"
    if width < WIDE:
        text = f"{window.total:,} in {len(window.reactions)} types, {age}"
        return [Piece(0, text if len(text) <= width else _cut(f"{window.total:,}, {age}", width), DIM)]
    text = f"window {window.window}: {window.total:,} reactions of {len(window.reactions)} types, {age}"
    room = width - len(text) - 4
    history = _history(list(state.totals)[-room:]) if room > 0 else ""
    return _fitting(width, Piece(1, text, DIM), Piece(width - len(history) - 1, history, ACCENT))


def _history(totals: Sequence[int]) -> str:
    most = max(totals, default=0)
    return "".join(STEPS[min(len(STEPS) - 1, total * len(STEPS) // (most + 1))] for total in totals)


def _put_list(rows: list[list[Piece]], body: range, left: int, width: int, ranked: Sequence[TypeCount]) -> None:
    """Write the most frequent emoji: the count, the emoji, and a bar that shows its share of the first."""
    if not ranked:
        return
    number = max(len(f"{ranked[0].count:,}"), 3)
    bar = left + number + 1 + EMOJI_WIDTH + 2
    room = max(0, left + width - bar)
    for row, each in zip(body, ranked, strict=False):
        rows[row] += [Piece(left, f"{each.count:>{number},}"), Piece(left + number + 1, each.emoji_type)]
        if room:
            rows[row].append(Piece(bar, _bar(each.count / ranked[0].count, room), ACCENT))
    if len(ranked) > len(body) > 1:
        rows[body[-1]] = [Piece(left, _cut(f"and {len(ranked) - len(body) + 1} more", width), DIM)]


def _bar(share: float, width: int) -> str:
    eighths = max(1, round(share * width * 8))
    whole, part = divmod(eighths, 8)
    return "█" * whole + (BARS[part] if part else "")


def _risen(sprites: Sequence[Sprite], now_s: float, plan: _Plan) -> list[tuple[int, int, str]]:
    """Return the row, the place and the emoji of each that rises now; of two at one place the later one is shown."""
    taken: dict[tuple[int, int], str] = {}
    for sprite in sprites:
        age = (now_s - sprite.start_s) / RISE_S
        if 0 <= age < 1 and plan.places and plan.swarm:
            row = len(plan.swarm) - 1 - int(age * len(plan.swarm))
            taken[row, int(sprite.across * plan.places)] = sprite.emoji_type
    return [(row, place, emoji_type) for (row, place), emoji_type in sorted(taken.items())]


def _put_waiting(rows: list[list[Piece]], body: range, width: int, state: State) -> None:
    if width < WIDE:
        lines = ["No window yet", "emostream send 😂"] if state.connected else ["No chain yet"]
    else:
        lines = ["Waiting for a window.", "React: emostream send 😂"] if state.connected else ["Waiting for the chain."]
    for row, text in zip(body[len(body) // 2 :], lines, strict=False):
        shown = _cut(text, width)
        rows[row] = [Piece(max(0, (width - len(shown) - 1) // 2), shown, DIM)]


def _fitting(width: int, *pieces: Piece) -> list[Piece]:
    """Return the pieces that fit side by side, the first ones before the later."""
    kept: list[Piece] = []
    end = 0
    for piece in pieces:
        if piece.text and piece.column >= end and piece.column + len(piece.text) <= width:
            kept.append(piece)
            end = piece.column + len(piece.text) + 1
    return kept


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
