"""A frame of `emostream watch`: in any size everything is in place, and the most frequent emoji come first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from experiments.cli import screen
from experiments.cli.screen import RISE_S, State
from pipeline.messages import TypeCount, Window
from pipeline.units import NS_PER_S
from tests.harness.builders import window

EMOJI = ("😂", "❤️", "🎉", "👍🏽", "👨‍👩‍👧", "🇬🇧", "🔥", "🙌", "💯", "😮", "☀️", "🤔")


def counted(number: int, *counts: int) -> Window:
    """A window of cluster 1 with these counts, each of another type."""
    reactions = [TypeCount(emoji, count, -(-count // 10)) for emoji, count in zip(EMOJI, counts, strict=False)]
    changes = {"trigger_ns": number * 2 * NS_PER_S, "cluster": "1"}
    return window(number, total=sum(counts), reactions=reactions, **changes)


def watching(*counts: int) -> State:
    """The state after a connection and one window, received at second 100."""
    state = State()
    state.opened()
    state.take(counted(1, *counts), 100.0, 50)
    return state


def lines(state: State, now_s: float, width: int, height: int) -> list[str]:
    """The rows of a frame as text."""
    rows = []
    for row in screen.frame(state, now_s, width, height):
        text = ""
        for piece in sorted(row, key=lambda each: each.column):
            text += " " * (piece.column - cell_len(text)) + piece.text
        rows.append(text)
    return rows


def test_most_frequent_emoji_come_first_with_count_and_bar() -> None:
    """The first one's bar is as long as the list is wide, the others' in proportion."""
    rows = lines(watching(10, 1200, 600), 100.0, 100, 24)
    assert [row.split()[:2] for row in rows[2:5]] == [["1,200", "❤️"], ["600", "🎉"], ["10", "😂"]]
    bars = [row.count("█") for row in rows[2:4]]
    assert bars[0] == 2 * bars[1] > 0


def test_rare_emoji_has_a_bar() -> None:
    """A count that is far below the first is not shown as nothing."""
    assert "▏" in lines(watching(100_000, 1), 100.0, 100, 24)[3]


def test_types_beyond_the_rows_are_counted() -> None:
    """The last row of the list says how many are left out."""
    rows = lines(watching(*range(12, 0, -1)), 100.0, 40, 7)
    assert rows[-1] == "and 7 more"


def test_swarm_rises_and_leaves() -> None:
    """Later the emoji are in higher rows, and after RISE_S beyond the last start none is left."""
    state = watching(10)
    start_s = state.sprites[0].start_s

    def row_of_the_swarm(now_s: float) -> list[int]:
        frame = screen.frame(state, now_s, 100, 24)
        return [
            row
            for row, pieces in enumerate(frame)
            if any(piece.text == "😂" and piece.column > screen.LIST_WIDTH for piece in pieces)
        ]

    (low,), (high,) = row_of_the_swarm(start_s), row_of_the_swarm(start_s + 0.9 * RISE_S)
    assert low == 21
    assert high < low
    assert row_of_the_swarm(start_s + RISE_S + 0.1) == []


def test_emoji_start_over_the_time_of_a_window() -> None:
    """Those of a two-second window start within two seconds, not at once."""
    state = watching(10)
    state.take(counted(2, 400), 102.0, 40)
    starts = [sprite.start_s - 102.0 for sprite in state.sprites if sprite.start_s >= 102.0]
    assert len(starts) == 40
    assert 0 <= min(starts) < 0.5
    assert 1.5 < max(starts) <= 2.0


def test_lost_connection_and_its_end_are_shown() -> None:
    """The reason is at the foot while it lasts; afterwards the number of reconnections stays."""
    state = watching(10)
    state.lost("the subscriber ended the stream")
    rows = lines(state, 100.0, 100, 24)
    assert "○ reconnecting" in rows[0]
    assert rows[-1].strip() == "the subscriber ended the stream"
    state.opened()
    rows = lines(state, 103.0, 100, 24)
    assert "● live" in rows[0]
    assert "reconnected 1×" in rows[0]
    assert "3 s ago" in rows[-1]


def test_missed_windows_are_shown() -> None:
    """A gap is not silent."""
    state = watching(10)
    state.missed = True
    assert "windows were missed" in lines(state, 100.0, 100, 24)[0]


@pytest.mark.parametrize(("connected", "text"), [(True, "React: emostream send"), (False, "Waiting for the chain.")])
def test_without_a_window_the_next_step_is_shown(connected: bool, text: str) -> None:
    """An empty screen would look broken."""
    state = State()
    if connected:
        state.opened()
    assert any(text in row for row in lines(state, 0.0, 80, 24))


def test_twenty_columns_show_whole_words() -> None:
    """The reason of a lost connection, and the next step without a window."""
    state = State()
    state.opened()
    rows = lines(state, 0.0, 20, 20)
    assert [row.strip() for row in rows[1:] if row.strip()] == ["No window yet", "emostream send 😂"]
    state.lost("connection refused: no answer from http://127.0.0.1:8080. Check that the chain is up")
    assert lines(state, 0.0, 20, 20)[-1] == "connection refused"


def test_twenty_columns_show_the_list_and_the_swarm() -> None:
    """The swarm is below the list, the numbers are whole."""
    state = watching(1234, 56)
    rows = lines(state, 101.0, 20, 20)
    assert rows[0] == "● live"
    assert rows[2].startswith("1,234 😂")
    assert any("😂" in row for row in rows[11:])
    assert "1,290" in rows[-1]


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    counts=st.lists(st.integers(1, 10**7), max_size=len(EMOJI)),
    later_s=st.floats(0, 6),
    lost=st.booleans(),
)
def test_no_piece_leaves_the_screen(width: int, height: int, counts: list[int], later_s: float, lost: bool) -> None:
    """In any size; only a list that does not fit is cut, at the right edge by the terminal itself."""
    state = watching(*counts)
    if lost:
        state.lost("no answer from http://127.0.0.1:8080/clients: " + "x" * 200)
    rows = screen.frame(state, 100.0 + later_s, width, height)
    assert len(rows) == height
    for row in rows:
        for piece in row:
            assert piece.column >= 0
            assert piece.column + cell_len(piece.text) <= max(width, MIN_WIDTH)


MIN_WIDTH = 14
"""Fewer columns do not even hold the largest count and its emoji."""
