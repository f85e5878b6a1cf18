"""Which reactions are repeats: within a window, across windows, after a restart and in a replay."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from pipeline.messages import Window
from pipeline.units import NS_PER_S
from spark.repeats import REMEMBERED_S, Identified, Remembered, with_ids

KINDS = ("😂", "🔥")


def records(*rows: tuple[int, int, int, str]) -> Identified:
    """Return records of (partition, offset, id, type), as Spark's second pass gives them."""
    columns = list(zip(*rows, strict=True)) or [[], [], [], []]
    kinds = (pa.int32(), pa.int64(), pa.int64(), pa.string())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return Identified.of(pa.table(arrays, names=["partition", "offset", "id", "emoji_type"]))


def window(number: int, trigger_s: float, **offsets: tuple[int, int]) -> Window:
    """Return a window with these offsets (p0, p1, …)."""
    named = {f"emoji-events-{name[1:]}": span for name, span in offsets.items()}
    return Window("e", number, round(trigger_s * NS_PER_S), 0, named, 0, [], repeats=0)


def test_first_of_a_window_counts() -> None:
    """By partition and offset, whatever the order in which Spark returns the rows."""
    found = Remembered().repeats(records((1, 0, 5, "😂"), (0, 9, 5, "🔥"), (0, 3, 5, "😂"), (0, 4, 6, "😂")), "e", 0, 1)
    assert found == {("🔥", 0): 1, ("😂", 1): 1}


def test_text_that_is_no_emoji_is_not_remembered() -> None:
    """It does not count, so that a reaction with the same id does."""
    remembered = Remembered()
    assert remembered.repeats(records((0, 0, 5, "word")), "e", 0, 1) == {}
    assert remembered.repeats(records((0, 1, 5, "😂")), "e", 1, 2) == {}


def test_id_is_remembered_for_ten_minutes_from_its_count() -> None:
    """A repeat does not prolong it."""
    remembered = Remembered()

    def sent(number: int, trigger_s: float) -> int:
        rows = records((0, number, 5, "😂"))
        return sum(remembered.repeats(rows, "e", number, round(trigger_s * NS_PER_S)).values())

    assert [sent(0, 0), sent(1, REMEMBERED_S - 6), sent(2, REMEMBERED_S), sent(3, REMEMBERED_S + 6)] == [0, 1, 1, 0]
    assert sent(4, 2 * REMEMBERED_S + 6) == 1


def test_window_that_is_counted_again_does_not_find_its_own_ids() -> None:
    """As when Spark repeats a batch after a restart: the counts are those of the first time."""
    first, second = records((0, 0, 5, "😂"), (0, 1, 6, "😂")), records((0, 2, 6, "🔥"), (0, 3, 7, "😂"))
    remembered = Remembered()
    remembered.repeats(first, "e", 0, 1)
    expected = remembered.repeats(second, "e", 1, 2)
    assert remembered.repeats(second, "e", 1, 3) == expected == {("🔥", 0): 1}


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.sampled_from(KINDS)), max_size=8),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.sampled_from([1, 100, 300, 601]), min_size=6, max_size=6),
)
def test_a_restart_changes_nothing(batches: list[list[tuple[int, int, str]]], pauses: list[int]) -> None:
    """What is read back from the windows and their records gives the same repeats, and a plain count agrees."""
    remembered, counted_s, ends = Remembered(), dict[int, float](), [0, 0]
    windows, everything, trigger_s = list[Window](), list[tuple[int, int, int, str]](), 0.0
    for number, (batch, pause_s) in enumerate(zip(batches, pauses, strict=False)):
        trigger_s += pause_s
        rows, spans = [], {}
        for partition, each, kind in batch:
            rows.append((partition, ends[partition], each, kind))
            first, _ = spans.get(f"p{partition}", (ends[partition], 0))
            spans[f"p{partition}"] = first, ends[partition]
            ends[partition] += 1
        expected: dict[tuple[str, int], int] = {}
        for partition, _, each, kind in sorted(rows):
            if each in counted_s and counted_s[each] >= trigger_s - REMEMBERED_S:
                expected[kind, partition] = expected.get((kind, partition), 0) + 1
            else:
                counted_s[each] = trigger_s
        restarted = Remembered.of(windows, records(*everything))
        windows.append(window(number, trigger_s, **spans))
        everything += rows
        for one in (restarted, remembered):
            assert one.repeats(records(*rows), "e", number, windows[-1].trigger_ns) == expected


def test_windows_to_remember_are_recent_and_of_these_records() -> None:
    """Offsets that belong to other records now are left out: of a topic that was made again, or that lost its end."""
    old, first, second = window(0, 0, p0=(0, 9)), window(1, 7, p0=(10, 19)), window(2, REMEMBERED_S + 6, p1=(0, 4))
    plain = structs.replace(window(3, REMEMBERED_S + 12, p0=(20, 29)), repeats=UNSET)
    emitted = [old, first, second]
    cut = structs.replace(first, offsets={"emoji-events-0": (10, 14)})
    assert with_ids(emitted, {0: 20, 1: 5}) == [first, second]
    assert with_ids([*emitted, plain], {0: 30, 1: 5}) == [second]
    assert with_ids(emitted, {0: 15, 1: 5}) == [cut, second]
    assert with_ids(emitted, {0: 20}) == [first], "the topic has one partition now"
    made_again = structs.replace(window(0, REMEMBERED_S + 6, p0=(0, 3)), epoch="f")
    assert with_ids([*emitted, made_again], {0: 4, 1: 0}) == [made_again]
    behind_a_lost_end = structs.replace(window(0, REMEMBERED_S + 6, p0=(15, 33)), epoch="f")
    assert with_ids([*emitted, behind_a_lost_end], {0: 34, 1: 5}) == [cut, second, behind_a_lost_end]
    assert with_ids([], {0: 0}) == []


def test_many_ids_are_told_apart() -> None:
    """Of a hundred thousand, sent in any order and again, each counts once."""
    rng = np.random.default_rng(3)
    ids = rng.integers(-(2**63), 2**63 - 1, 100_000, dtype=np.int64)
    both = np.concatenate((ids, ids))
    rng.shuffle(both)
    remembered, repeats = Remembered(), 0
    for number, part in enumerate(np.array_split(both, 20)):
        kinds = np.array(["😂"] * len(part), dtype=object)
        offsets = np.arange(len(part))
        counts = remembered.repeats(Identified(np.zeros_like(offsets), offsets, part, kinds), "e", number, number)
        repeats += sum(counts.values())
    assert repeats == len(both) - len(np.unique(ids))


def test_window_without_ids_says_nothing_of_repeats() -> None:
    """Its JSON is as before."""
    assert Window("e", 0, 1, 2, {}, 0, []).repeats is UNSET
