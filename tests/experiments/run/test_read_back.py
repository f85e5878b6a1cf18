"""What is read back from Kafka: unreadable records are counted or skipped, and never end the reading."""

from __future__ import annotations

import json

import msgspec

from experiments.ledger import COLUMNS
from experiments.run import read_back
from pipeline.bus.base import Record
from pipeline.messages import Event, TypeCount, Window, encode

STAMP = "2026-11-23T09:30:00Z"


def window(number: int, first: int, last: int) -> Window:
    """A window of one type."""
    offsets = {"emoji-events-0": (first, last)}
    return Window("e", number, 5, 6, offsets, 2, [TypeCount("😂", 2, 1)], appended_ms={"emoji-events-0": 7})


def record(offset: int, value: bytes | None) -> Record:
    """A record of partition 0, appended after 7 ms."""
    return Record(0, offset, 7, None, value)


def test_unreadable_reaction_has_a_row_without_emoji() -> None:
    """Its offset is there, so that a window that counts it can be checked."""
    event = Event("ada", "😂", STAMP, 3, 4)
    frame = read_back.events([record(0, b"?"), record(1, encode(event)), record(2, None)])
    assert tuple(frame.columns) == COLUMNS["topic"]
    assert list(frame["offset"]) == [0, 1, 2]
    assert frame["emoji_type"].to_list() == [None, "😂", None]
    assert frame["timestamp"].iloc[1] == "2026-11-23T09:30:00.000000Z"


def test_foreign_records_count_as_they_do_in_spark() -> None:
    """One with an emoji and nothing else is counted; text that is no emoji, and bytes that are no text, are not."""
    values = [
        *('{"emoji_type":"😂"}'.encode(), b'{"emoji_type":12345}', b'{"emoji_type":"<img src=x onerror=alert(1)>"}'),
        *(b'{"user_id":"\xff","emoji_type":"x"}', b"[" * 100_000, encode(Event("ada", "word", STAMP, 3, 4))),
        *(encode(Event("ada", "❤", STAMP, 3, 4)), encode(Event("ada", "❤️", STAMP, 3, 4))),
    ]
    frame = read_back.events([record(offset, value) for offset, value in enumerate(values)])
    assert frame["emoji_type"].to_list() == ["😂", None, None, None, None, None, None, "❤️"]
    assert frame["user_id"].to_list() == [None, None, None, None, None, "ada", "ada", "ada"]


def test_repeats_are_found_as_spark_finds_them() -> None:
    """Within a window and across windows, not after ten minutes; a record without an emoji never counts.

    Of a longer pause a minute counts.
    """
    minute_ms = 60_000
    ids = ["a", "a", "b", None, "a", "b", "a", 7, "7"]
    kinds = ["😂", "😂", "word", "😂", "🔥", "😂", "😂", "😂", "😂"]
    fields = zip(kinds, ids, strict=True)
    records = [
        record(offset, json.dumps({"emoji_type": kind, **({} if each is None else {"reaction_id": each})}).encode())
        for offset, (kind, each) in zip((0, 1, 2, 3, 4, 14, 16, 17, 18), fields, strict=True)
    ]
    quiet = [(5 + number, 5 + number, 90 + number) for number in range(9)]
    spans = [(0, 3, 0), (4, 4, 90), *quiet, (14, 14, 99), (15, 15, 100), (16, 18, 101)]
    windows = [
        msgspec.structs.replace(
            window(number, first, last),
            appended_ms={"emoji-events-0": after * minute_ms},
            repeats=msgspec.UNSET if 5 <= first <= 13 or first == 15 else 0,
        )
        for number, (first, last, after) in enumerate(spans)
    ]
    # The second copy of a window is not the one that was forwarded.
    emitted = [*windows, msgspec.structs.replace(windows[1], offsets={"emoji-events-0": (0, 18)})]
    found = read_back.repeats(records, [record(number, encode(each)) for number, each in enumerate(emitted)])
    assert found == {(0, 1), (0, 4), (0, 18)}
    frame = read_back.events(records, found)
    assert frame["emoji_type"].to_list() == ["😂", None, None, "😂", None, "😂", "😂", "😂", None]
    assert list(read_back.windows([record(0, encode(windows[0]))], {})["malformed"]) == [0]
    counted = msgspec.structs.replace(windows[0], malformed=1, repeats=2)
    assert list(read_back.windows([record(0, encode(counted))], {})["malformed"]) == [3]


def test_unreadable_window_is_skipped() -> None:
    """The windows around it are there."""
    values = [encode(window(0, 0, 1)), b"{", None, encode(window(1, 2, 3))]
    frame = read_back.windows([record(offset, value) for offset, value in enumerate(values)], {})
    assert tuple(frame.columns) == COLUMNS["windows"]
    assert list(frame["window"]) == [0, 1]


def test_windows_of_earlier_records_are_left_out() -> None:
    """On a chain that was up, only what this run added is its own."""
    values = [encode(window(0, 0, 1)), encode(window(1, 2, 3))]
    records = [record(offset, value) for offset, value in enumerate(values)]
    assert list(read_back.windows(records, {"emoji-events-0": 2})["window"]) == [1]


def test_records_that_are_no_reports_are_skipped() -> None:
    """Any program may write to the topic; the reports around such records are there, idle ones are not."""
    took = {"triggerExecution": 300, "latestOffset": 5, "addBatch": 200, "walCommit": 20, "commitOffsets": 30}
    report = {"batchId": 7, "timestamp": "2026-11-20T20:00:00.250Z", "numInputRows": 40, "durationMs": took}
    values = [b'{"batchId": "seven"}', None, b"[]", encode(report), encode({**report, "durationMs": {}})]
    frame = read_back.progress(record(offset, value) for offset, value in enumerate(values))
    assert tuple(frame.columns) == COLUMNS["progress"]
    assert frame[["batch_id", "num_input_rows", "add_batch_ms"]].to_dict("records") == [
        {"batch_id": 7, "num_input_rows": 40, "add_batch_ms": 200}
    ]
