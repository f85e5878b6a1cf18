"""Decoding records: an unreadable one is logged, counted and skipped, and the others are yielded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.bus import records as records_module
from pipeline.bus.base import Bus, Record
from pipeline.bus.memory import MemoryBus
from pipeline.bus.records import keyed, last_readable, readable
from pipeline.bus.topics import TopicSpec
from pipeline.errors import MessageError
from pipeline.messages import ClusterRoute, decode_cluster_route, encode
from tests.harness.stages.bus import append

ROUTE = ClusterRoute("a", 7)


def records(*pairs: tuple[bytes | None, bytes | None]) -> list[Record]:
    """Return records with these keys and values, from offset 0 on."""
    return [Record(0, offset, 0, key, value) for offset, (key, value) in enumerate(pairs)]


def test_unreadable_record_is_logged_counted_and_skipped() -> None:
    """The log names what was expected, where the record is and why it was not read."""
    skipped: list[tuple[int, str]] = []
    topic = records((None, encode(ROUTE)), (None, b"nonsense"), (None, None), (None, encode(ROUTE)))
    with capture_logs() as logged:
        read = list(
            readable(
                topic, decode_cluster_route, "route", lambda record, reason: skipped.append((record.offset, reason))
            )
        )
    assert read == [(topic[0], ROUTE), (topic[3], ROUTE)]
    assert [(entry["event"], entry["expected"], entry["offset"]) for entry in logged] == [
        ("skipped an unreadable record", "route", 1),
        ("skipped an unreadable record", "route", 2),
    ]
    assert "not a ClusterRoute" in logged[0]["reason"]
    assert skipped == [(entry["offset"], entry["reason"]) for entry in logged]


def test_keyed_yields_tombstones_and_skips_records_without_key() -> None:
    """A tombstone's message is None; an unreadable record leaves its key out."""
    topic = records((b"a", encode(ROUTE)), (None, encode(ROUTE)), (b"b", b"nonsense"), (b"a", None))
    assert list(keyed(topic, decode_cluster_route, "route")) == [("a", ROUTE), ("a", None)]


def decode_even(value: bytes | None) -> int:
    """Return an even number; all other records are another program's."""
    if not (value or b"x").isdigit() or int(value or b"1") % 2:
        raise MessageError("not an even number")
    return int(value or b"")


@pytest.mark.parametrize(
    ("readable_ones", "foreign", "count", "expected"),
    [
        ([2, 4, 6], [b"x"] * 50, 2, [4, 6]),
        ([2, 4, 6], [b"x"] * 50, 3, [2, 4, 6]),
        ([2, 4, 6], [None] * 50, 9, [2, 4, 6]),
        ([2, 4, 6], [], 2, [4, 6]),
        ([], [b"x"] * 50, 2, []),
        ([], [], 2, []),
    ],
)
def test_last_readable_records_are_found_behind_others(
    bus: Bus,
    make_topic: Callable[..., str],
    readable_ones: list[int],
    foreign: list[bytes | None],
    count: int,
    expected: list[int],
) -> None:
    """However many records of another program come after them; fewer than asked for if the topic has no more."""
    topic, skipped = make_topic(), []
    append(bus, topic, b"first", *(b"%d" % number for number in readable_ones), *foreign)
    found = last_readable(
        bus, topic, count, decode_even, lambda record, reason: skipped.append((record.offset, reason))
    )
    assert [message for _, message in found] == expected
    assert [record.value for record, _ in found] == [b"%d" % number for number in expected]
    behind = range(1 + len(readable_ones), 1 + len(readable_ones) + len(foreign))
    assert skipped[: len(foreign)] == [(offset, "not an even number") for offset in reversed(behind)]


def test_last_readable_reads_back_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a long topic of another program's records is never in memory as a whole; the log has one line about them."""
    monkeypatch.setattr(records_module, "LOOK_BACK_STEP", 8)
    bus, taken = MemoryBus(), []
    bus.ensure(TopicSpec("t"))
    append(bus, "t", b"2", *[b"x"] * 40)
    read = bus.read

    def counted(*arguments: Any) -> list[Record]:
        taken.append(len(read(*arguments)))
        return read(*arguments)

    monkeypatch.setattr(bus, "read", counted)
    with capture_logs() as logged:
        assert [message for _, message in last_readable(bus, "t", 3, decode_even)] == [2]
    assert taken == [3, 6, 8, 8, 8, 8]
    assert [(entry["topic"], entry["count"], entry["found"]) for entry in logged] == [("t", 40, 1)]


def test_last_readable_gives_up_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage starts within a bounded time, whatever was written into its topic."""
    monkeypatch.setattr(records_module, "LOOK_BACK_BYTES", 100)
    bus = MemoryBus()
    bus.ensure(TopicSpec("t"))
    append(bus, "t", b"2", *[b"x" * 10] * 99)
    assert last_readable(bus, "t", 4, decode_even) == []
