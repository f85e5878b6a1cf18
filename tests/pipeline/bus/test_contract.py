"""The bus's contract: the in-memory bus and the real Kafka both pass these tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing

import pytest

from pipeline.bus import base
from pipeline.bus.base import Bus, Record
from pipeline.bus.records import FURTHER, tail_until
from pipeline.bus.topics import TopicSpec
from tests.harness.stages.bus import append, take, values


def test_records_are_read_in_order_with_offsets(bus: Bus, make_topic: Callable[..., str]) -> None:
    """A reader without a start gets every record from the oldest on, and then each one that is appended."""
    topic = make_topic()
    append(bus, topic, *(b"%d" % n for n in range(500)))
    with closing(bus.reader(topic)) as reader:
        first = take(reader, 500)
        append(bus, topic, b"500", b"501")
        records = first + take(reader, 2)
    assert values(records) == [b"%d" % n for n in range(502)]
    assert [(record.partition, record.offset) for record in records] == [(0, n) for n in range(502)]


def test_timestamp_is_append_time_in_epoch_milliseconds(bus: Bus, make_topic: Callable[..., str]) -> None:
    """The stamp lies between the moments before and after the append."""
    topic = make_topic()
    before_ms = time.time_ns() // 1_000_000
    append(bus, topic, b"x")
    after_ms = time.time_ns() // 1_000_000
    assert before_ms <= bus.tail(topic, 1)[0].timestamp_ms <= after_ms


def test_ensuring_an_existing_topic_changes_nothing(bus: Bus, make_topic: Callable[..., str]) -> None:
    """An existing topic keeps its records and partitions, whatever the spec says; missing topics are created."""
    topic = make_topic(2)
    append(bus, topic, b"x", key=b"k")
    bus.ensure(TopicSpec(topic, 2), TopicSpec(topic + "-new"))
    bus.ensure(TopicSpec(topic, 5))
    assert sorted(bus.ends(topic)) == [0, 1]
    assert values(bus.tail(topic, 10)) == [b"x"]
    assert bus.ends(topic + "-new") == {0: 0}


def test_reader_starts_at_given_offset(bus: Bus, make_topic: Callable[..., str]) -> None:
    """The record at the offset is included; a reader that starts at the end gets only later records."""
    topic = make_topic()
    append(bus, topic, b"0", b"1", b"2")
    with closing(bus.reader(topic, {0: 1})) as middle, closing(bus.reader(topic, bus.ends(topic))) as end:
        assert values(take(middle, 2)) == [b"1", b"2"]
        append(bus, topic, b"3")
        assert values(take(end, 1)) == [b"3"]
        assert values(take(middle, 1)) == [b"3"]


def test_partition_without_start_is_read_from_oldest(bus: Bus, make_topic: Callable[..., str]) -> None:
    """The start may name some partitions only."""
    topic = make_topic(4)
    with closing(bus.writer()) as writer:
        for n in range(40):
            writer.send(topic, b"%d" % n, key=b"key-%d" % n)
        writer.flush()
    ends = bus.ends(topic)
    assert sum(ends.values()) == 40
    full = max(ends, key=lambda partition: ends[partition])
    with closing(bus.reader(topic, {full: ends[full] - 1})) as reader:
        records = take(reader, 40 - ends[full] + 1)
    assert [record.offset for record in records if record.partition == full] == [ends[full] - 1]


def test_records_of_a_key_share_a_partition_in_order(bus: Bus, make_topic: Callable[..., str]) -> None:
    """All records of a key are on one partition, in the order in which they were sent."""
    topic = make_topic(3)
    with closing(bus.writer()) as writer:
        for n in range(60):
            writer.send(topic, b"%d" % n, key=b"key-%d" % (n % 5))
        writer.flush()
    with closing(bus.reader(topic)) as reader:
        records = take(reader, 60)
    for key in {record.key for record in records}:
        own = [record for record in records if record.key == key]
        assert len({record.partition for record in own}) == 1
        assert [int(record.value or b"") % 5 for record in own] == [int((key or b"").removeprefix(b"key-"))] * 12
        assert sorted(values(own), key=lambda value: int(value or b"")) == values(own)


def test_null_value_is_a_tombstone_with_its_key(bus: Bus, make_topic: Callable[..., str]) -> None:
    """A null value is read as None with its key, and differs from an empty value."""
    topic = make_topic()
    append(bus, topic, None, b"", key=b"client")
    append(bus, topic, b"x")
    records = bus.tail(topic, 3)
    assert [(record.key, record.value) for record in records] == [(b"client", None), (b"client", b""), (None, b"x")]


def test_readers_are_independent(bus: Bus, make_topic: Callable[..., str]) -> None:
    """Two readers each get every record, and closing one does not affect the other."""
    topic = make_topic()
    append(bus, topic, b"0", b"1")
    with closing(bus.reader(topic)) as second:
        with closing(bus.reader(topic)) as first:
            assert values(take(first, 2)) == [b"0", b"1"]
        append(bus, topic, b"2")
        assert values(take(second, 3)) == [b"0", b"1", b"2"]


def test_poll_without_new_records_returns_empty_list(bus: Bus, make_topic: Callable[..., str]) -> None:
    """A poll ends after its timeout."""
    with closing(bus.reader(make_topic())) as reader:
        assert reader.poll(0.01) == []


def test_ends_are_one_after_last_offset(bus: Bus, make_topic: Callable[..., str]) -> None:
    """An empty partition ends at 0, another one at the number of its records."""
    topic = make_topic(2)
    assert bus.ends(topic) == {0: 0, 1: 0}
    append(bus, topic, b"a", b"b", b"c", key=b"k")
    assert sorted(bus.ends(topic).values()) == [0, 3]


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [b"4"]), (3, [b"2", b"3", b"4"]), (9, list(b"01234"))])
def test_tail_returns_last_records_oldest_first(
    bus: Bus, make_topic: Callable[..., str], count: int, expected: list[bytes | int]
) -> None:
    """The tail is the whole topic if it has fewer records than asked for."""
    topic = make_topic()
    append(bus, topic, *(b"%d" % n for n in range(5)))
    wanted = [bytes([each]) if isinstance(each, int) else each for each in expected]
    assert values(bus.tail(topic, count)) == wanted


def test_tail_counts_per_partition(bus: Bus, make_topic: Callable[..., str]) -> None:
    """With several partitions, each contributes its own last records."""
    topic = make_topic(3)
    with closing(bus.writer()) as writer:
        for n in range(60):
            writer.send(topic, b"%d" % n, key=b"key-%d" % n)
        writer.flush()
    ends = bus.ends(topic)
    expected = {(p, offset) for p, end in ends.items() for offset in range(max(0, end - 2), end)}
    assert {(record.partition, record.offset) for record in bus.tail(topic, 2)} == expected


def test_range_has_the_records_from_its_start_to_before_its_end(bus: Bus, make_topic: Callable[..., str]) -> None:
    """Without an end it has all up to the last one now; the bounds are the whole topic's."""
    topic = make_topic()
    append(bus, topic, *(b"%d" % n for n in range(5)))
    assert bus.bounds(topic) == {0: (0, 5)}
    assert values(bus.read(topic, {0: 1}, {0: 3})) == [b"1", b"2"]
    assert values(bus.read(topic, {0: 3})) == [b"3", b"4"]
    assert values(bus.read(topic)) == [b"%d" % n for n in range(5)]
    assert bus.read(topic, {0: 2}, {0: 2}) == []


def test_close_flushes_the_writer(bus: Bus, make_topic: Callable[..., str]) -> None:
    """A record sent before close is in the log after it."""
    topic = make_topic()
    writer = bus.writer()
    writer.send(topic, b"x")
    writer.close()
    assert bus.ends(topic) == {0: 1}


@pytest.mark.parametrize(("wanted", "read"), [(1, 40), (3, 40 * FURTHER), (9, 400)])
def test_tail_goes_back_until_it_is_enough(bus: Bus, make_topic: Callable[..., str], wanted: int, read: int) -> None:
    """Records of other programs do not count, however many there are. All that there is comes if it is not enough."""
    topic = make_topic()
    append(bus, topic, *([b"junk"] * 80), *([b"own"] * 5), *([b"junk"] * 300), *([b"own"] * 2), *([b"junk"] * 13))
    seen = []

    def own(records: Iterable[Record]) -> list[Record]:
        read = list(records)
        seen.append(len(read))
        return [record for record in read if record.value == b"own"]

    found = tail_until(bus, topic, 40, own, lambda found: len(found) >= wanted)
    assert [record.offset for record in found] == [at for at in (*range(80, 85), 385, 386) if at >= 400 - read]
    assert seen[-1] == read
    assert tail_until(bus, make_topic(), 40, own, bool) == []


def test_tail_is_bounded_in_bytes(bus: Bus, make_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign writer may have filled the topic: the newest records that fit are returned, in order."""
    monkeypatch.setattr(base, "TAIL_MAX_BYTES", 1_000)
    topic = make_topic()
    append(bus, topic, *(b"%03d" % n + bytes(297) for n in range(10)), key=b"kk")
    assert [(record.value or b"")[:3] for record in bus.tail(topic, 100)] == [b"007", b"008", b"009"]
    assert len(bus.tail(topic, 2)) == 2
    append(bus, topic, bytes(1_001))
    assert bus.tail(topic, 100) == []


def test_records_are_yielded_between_start_and_ends(bus: Bus, make_topic: Callable[..., str]) -> None:
    """Later ones are left out; without a start they begin with the oldest."""
    topic = make_topic()
    append(bus, topic, *(b"%d" % n for n in range(5)))
    ends = bus.ends(topic)
    append(bus, topic, b"later")
    assert values(list(bus.records(topic, ends))) == [b"0", b"1", b"2", b"3", b"4"]
    assert values(list(bus.records(topic, ends, {0: 3}))) == [b"3", b"4"]
    assert list(bus.records(topic, {0: 0})) == []
