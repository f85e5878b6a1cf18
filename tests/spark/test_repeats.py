"""Which reactions are repeats: within a window, across windows, after a restart and in a replay."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from experiments.run import read_back
from pipeline.bus.base import Record
from pipeline.messages import Window, encode
from spark.repeats import PAUSE_MS, REMEMBERED_MS, Clock, Identified, Remembered, first_remembered, to_remember
from spark.resume import spans_of

KINDS = ("😂", "🔥")
MINUTE_MS = 60_000


def records(*rows: tuple[int, int, int, str]) -> Identified:
    """Return records of (partition, offset, id, type), as Spark's second pass gives them."""
    columns = list(zip(*rows, strict=True)) or [[], [], [], []]
    kinds = (pa.int32(), pa.int64(), pa.int64(), pa.string())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return Identified.of(pa.table(arrays, names=["partition", "offset", "id", "emoji_type"]))


def window(number: int, appended_ms: int | Sequence[int], **offsets: tuple[int, int]) -> Window:
    """Return a window with these offsets (p0, p1, …), whose last records were appended at one time, or one each."""
    named = {f"emoji-events-{name[1:]}": span for name, span in offsets.items()}
    stamps = [appended_ms] * len(named) if isinstance(appended_ms, int) else appended_ms
    return Window("e", number, 0, 0, named, 0, [], repeats=0, appended_ms=dict(zip(named, stamps, strict=True)))


def counted(remembered: Remembered, number: int, appended_ms: int, *ids: int) -> int:
    """Return how many of a window's ids are repeats."""
    rows = records(*((0, offset, each, "😂") for offset, each in enumerate(ids)))
    return sum(remembered.repeats(rows, "e", number, [appended_ms]).values())


def test_first_of_a_window_counts() -> None:
    """By partition and offset, whatever the order in which Spark returns the rows."""
    rows = records((1, 0, 5, "😂"), (0, 9, 5, "🔥"), (0, 3, 5, "😂"), (0, 4, 6, "😂"))
    assert Remembered().repeats(rows, "e", 0, [1]) == {("🔥", 0): 1, ("😂", 1): 1}


def test_text_that_is_no_emoji_is_not_remembered() -> None:
    """It does not count, so that a reaction with the same id does."""
    remembered = Remembered()
    assert remembered.repeats(records((0, 0, 5, "word")), "e", 0, [1]) == {}
    assert remembered.repeats(records((0, 1, 5, "😂")), "e", 1, [2]) == {}


def test_id_is_remembered_for_ten_minutes_from_its_count() -> None:
    """Windows without ids come meanwhile. A repeat does not prolong it."""
    remembered = Remembered()
    number = itertools.count()

    def sent(at_minute: int, *ids: int) -> int:
        return counted(remembered, next(number), at_minute * MINUTE_MS, *ids)

    assert sent(0, 5) == 0
    assert [sent(minute, *([5] if minute == 9 else [])) for minute in range(1, 11)] == [0] * 8 + [1, 0]
    assert sent(11, 5) == 1
    assert sent(12, 5) == 0
    assert sent(12, 5) == 1


@pytest.mark.parametrize("away_ms", [11 * MINUTE_MS, 3_600_000, -3_600_000])
def test_pause_forgets_no_id(away_ms: int) -> None:
    """Spark or Kafka was away, or a clock was set. The copy was in Kafka or in a buffer, and comes some windows later.

    By the windows' times it is an hour after the first one.
    """
    remembered = Remembered()
    assert counted(remembered, 0, 0, 5) == 0
    assert counted(remembered, 1, away_ms) == 0
    assert counted(remembered, 2, away_ms + 6_000, 5) == 1


def test_backlog_is_forgotten_by_the_times_of_its_records() -> None:
    """However fast its windows follow each other: ten minutes of a backlog are remembered, and no more."""
    remembered = Remembered()
    for number in range(60):
        assert counted(remembered, number, number * MINUTE_MS // 2, number) == 0
    assert len(remembered._ids) == 2 * REMEMBERED_MS // MINUTE_MS + 2


def test_clock_goes_by_the_partition_that_is_furthest_behind() -> None:
    """An id of the others is remembered for that much longer: a copy may still come where less was read."""
    clock = Clock().after([0, 0]).after([1_000, 90_000])
    assert clock == Clock(1_000, 1_000)
    assert clock.until_ms([1_000, 90_000]) == 90_000 + REMEMBERED_MS
    assert clock.after([1_000 + 2 * PAUSE_MS]) == Clock(1_000 + PAUSE_MS, 1_000 + 2 * PAUSE_MS)
    assert clock.after([500]) == Clock(1_000, 500)


@pytest.mark.parametrize("appended_ms", [2, 9_999])
def test_window_that_is_counted_again_does_not_find_its_own_ids(appended_ms: int) -> None:
    """As when Spark repeats a batch after a restart: the counts are those of the first time.

    It finds those of the window before, also if both have the same times, as after a restart of the job.
    """
    first, second = records((0, 0, 5, "😂"), (0, 1, 6, "😂")), records((0, 2, 6, "🔥"), (0, 3, 7, "😂"))
    remembered = Remembered()
    remembered.repeats(first, "e", 0, [2])
    expected = remembered.repeats(second, "e", 1, [appended_ms])
    assert remembered.repeats(second, "e", 1, [appended_ms]) == expected == {("🔥", 0): 1}
    assert counted(remembered, 2, appended_ms, 5, 6, 7) == 3


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 1), st.one_of(st.none(), st.integers(0, 8)), st.sampled_from(KINDS)),
            min_size=1,
            max_size=8,
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.sampled_from([1, 30_000, 60_000, 120_000, 7_200_000, -300_000]), min_size=12, max_size=12),
    st.lists(st.sampled_from([0, 500, 90_000]), min_size=12, max_size=12),
)
def test_a_restart_changes_nothing_and_the_oracle_agrees(
    batches: list[list[tuple[int, int | None, str]]], pauses_ms: list[int], apart_ms: list[int]
) -> None:
    """What is read back from the windows and their records gives the same repeats, and so does the measurement's count.

    Some records have no id, and neither have all of some windows.
    """
    remembered, ends = Remembered(), [0, 0]
    windows, everything, now_ms = list[Window](), list[tuple[int, int, int, str]](), 10**9
    events, expected = list[Record](), list[int]()
    for number, (batch, pause_ms, apart) in enumerate(zip(batches, pauses_ms, apart_ms, strict=False)):
        now_ms += pause_ms
        rows, spans = [], dict[str, tuple[int, int]]()
        for partition, each, kind in batch:
            if each is not None:
                rows.append((partition, ends[partition], each, kind))
            value = {"emoji_type": kind} | ({} if each is None else {"reaction_id": str(each)})
            events.append(Record(partition, ends[partition], now_ms, None, json.dumps(value).encode()))
            first, _ = spans.get(f"p{partition}", (ends[partition], 0))
            spans[f"p{partition}"] = first, ends[partition]
            ends[partition] += 1
        made = window(number, [now_ms + apart * place for place in range(len(spans))], **spans)
        stamps = (made.appended_ms or {}).values()
        restarted = Remembered.of(to_remember(windows, dict(enumerate(ends))), records(*everything))
        found = remembered.repeats(records(*rows), "e", number, stamps)
        assert restarted.repeats(records(*rows), "e", number, stamps) == found
        windows.append(made if rows else structs.replace(made, repeats=UNSET))
        everything += rows
        again = Remembered.of(to_remember(windows, dict(enumerate(ends))), records(*everything))
        assert again.repeats(records(*rows), "e", number, stamps) == found, "the batch is repeated after a restart"
        expected.append(sum(found.values()))
    oracle = read_back.repeats(events, [Record(0, each.window, 0, None, encode(each)) for each in windows])
    assert expected == [
        sum(first <= offset <= last for number, offset in oracle for first, last in [spans.get(number, (0, -1))])
        for spans in map(spans_of, windows)
    ]


def test_windows_to_remember_are_recent_and_of_these_records() -> None:
    """Offsets that belong to other records now are left out: of a topic that was made again, or that lost its end."""
    old, first = window(0, 0, p0=(0, 9)), window(1, PAUSE_MS, p0=(10, 19))
    plain = [structs.replace(window(2 + n, (2 + n) * PAUSE_MS, p1=(n, n)), repeats=UNSET) for n in range(10)]
    last = window(12, 12 * PAUSE_MS, p1=(10, 14))
    emitted = [old, first, *plain, last]
    nowhere = [structs.replace(each, offsets={}) for each in plain]
    assert first_remembered(emitted) == 1
    assert to_remember(emitted, {0: 20, 1: 15}) == [first, *nowhere, last]
    cut = structs.replace(first, offsets={"emoji-events-0": (10, 14)})
    assert to_remember(emitted, {0: 15, 1: 15}) == [cut, *nowhere, last]
    gone = structs.replace(last, offsets={})
    assert to_remember(emitted, {0: 20}) == [first, *nowhere, gone], "the topic has one partition now"
    made_again = structs.replace(window(0, 12 * PAUSE_MS, p0=(0, 3)), epoch="f")
    left = [structs.replace(first, offsets={}), *nowhere]
    assert to_remember([*emitted[:-1], made_again], {0: 4, 1: 0}) == [*left, made_again]
    behind_a_lost_end = structs.replace(window(0, 12 * PAUSE_MS, p0=(15, 33)), epoch="f")
    assert to_remember([*emitted[:-1], behind_a_lost_end], {0: 34, 1: 10}) == [cut, *nowhere, behind_a_lost_end]
    assert to_remember([], {0: 0}) == []
    assert first_remembered([]) == 0


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
        counts = remembered.repeats(Identified(np.zeros_like(offsets), offsets, part, kinds), "e", number, [number])
        repeats += sum(counts.values())
    assert repeats == len(both) - len(np.unique(ids))


def test_window_without_ids_says_nothing_of_repeats() -> None:
    """Its JSON is as before."""
    assert Window("e", 0, 1, 2, {}, 0, []).repeats is UNSET
