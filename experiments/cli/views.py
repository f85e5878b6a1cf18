"""How `emostream watch` shows what arrives: on the whole terminal, as lines of text, or as lines of JSON."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from rich.console import Console
from rich.segment import ControlType, Segment

from experiments.cli import screen
from pipeline.messages import Window, encode
from pipeline.units import NS_PER_S

FRAMES_PER_S = 10
LISTED = 8
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
USUAL_SIZE = (80, 24)
"""The columns and rows of a terminal that does not say."""


class View(Protocol):
    """How what arrives is shown."""

    def opened(self) -> None:
        """A connection is open."""

    def lost(self, reason: str) -> None:
        """The connection is lost, or an attempt failed."""

    def missed(self) -> None:
        """Windows were missed permanently."""

    def show(self, window: Window) -> None:
        """A window has arrived."""

    async def keep_drawing(self) -> None:
        """Draw until cancelled, or return at once."""


@contextmanager
def view(as_json: bool) -> Iterator[View]:
    """Yield the view that fits standard output; a terminal is as it was before when the body ends."""
    console = Console()
    if as_json:
        yield JsonLines()
    elif not console.is_terminal or console.is_dumb_terminal:
        yield PlainLines()
    else:
        with console.screen():
            # A terminal that draws an emoji wider than two columns must not begin a new row with the rest of it.
            console.file.write(NO_WRAP)
            try:
                yield Terminal(console)
            finally:
                console.file.write(WRAP)


class PlainLines:
    """Each window as a line of text: the time of its trigger, the number of reactions, and the most frequent emoji.

    What happens to the connection is on standard error.
    """

    def __init__(self) -> None:
        self._lost = False

    def opened(self) -> None:
        """Report a connection after a lost one."""
        if self._lost:
            print("emostream watch: connected again", file=sys.stderr, flush=True)
        self._lost = False

    def lost(self, reason: str) -> None:
        """Report the first failure."""
        if not self._lost:
            print(f"emostream watch: {reason}; reconnecting", file=sys.stderr, flush=True)
        self._lost = True

    def missed(self) -> None:
        """Report it."""
        print("emostream watch: windows were missed", file=sys.stderr, flush=True)

    def show(self, window: Window) -> None:
        """Print the line."""
        at = datetime.fromtimestamp(window.trigger_ns / NS_PER_S).astimezone()
        ranked = sorted(window.reactions, key=lambda each: (-each.count, each.emoji_type))
        counts = [f"{each.emoji_type} {each.count:,}" for each in ranked[:LISTED]]
        more = [f"and {len(ranked) - LISTED} more"] if len(ranked) > LISTED else []
        print(
            f"{at:%H:%M:%S}  window {window.window}", f"{window.total:,} in all", *counts, *more, sep="  ", flush=True
        )

    async def keep_drawing(self) -> None:
        """Do nothing."""


class JsonLines(PlainLines):
    """Each window as a line of JSON."""

    def show(self, window: Window) -> None:
        """Print the line."""
        print(encode(window).decode(), flush=True)


class Terminal:
    """The whole terminal, drawn again as time passes; only rows that changed are written."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = screen.State()
        self._size = (0, 0)
        self._rows: list[list[screen.Piece]] = []

    def opened(self) -> None:
        """Take note."""
        self._state.opened()

    def lost(self, reason: str) -> None:
        """Take note."""
        self._state.lost(reason)

    def missed(self) -> None:
        """Take note."""
        self._state.missed = True

    def show(self, window: Window) -> None:
        """Take note."""
        self._state.take(window, time.monotonic(), screen.swarm_room(*_size(self._console)))

    async def keep_drawing(self) -> None:
        """Draw frames until cancelled."""
        while True:
            self.draw()
            await asyncio.sleep(1 / FRAMES_PER_S)

    def draw(self) -> None:
        """Draw one frame, in the size that the terminal has now."""
        size = _size(self._console)
        rows = screen.frame(self._state, time.monotonic(), *size)
        if size != self._size:
            self._console.size = size
            self._console.clear()
            self._size, self._rows = size, [[] for _ in rows]
        for number, (before, row) in enumerate(zip(self._rows, rows, strict=True)):
            if row != before:
                self._console.update_screen_lines([self._segments(row)], y=number)
        self._rows = rows

    def _segments(self, row: list[screen.Piece]) -> list[Segment]:
        segments = [_control(f"\x1b[{0}K", ControlType.ERASE_IN_LINE, 0)]
        for piece in row:
            column = _control(f"\x1b[{piece.column + 1}G", ControlType.CURSOR_MOVE_TO_COLUMN, piece.column)
            segments += [column, Segment(piece.text, self._console.get_style(piece.style or "none"))]
        return segments


def _control(code: str, kind: ControlType, value: int) -> Segment:
    return Segment(code, None, [(kind, value)])


def _size(console: Console) -> tuple[int, int]:
    """Return the terminal's columns and rows. Rich prefers the variables COLUMNS and LINES, which never change."""
    try:
        columns, rows = os.get_terminal_size(console.file.fileno())
    except OSError:
        return USUAL_SIZE
    return (columns, rows) if columns and rows else USUAL_SIZE
