"""The records of a window that are no reactions are found again in the topic."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec
from spark import unused as module
from spark.unused import unused
from spark.window import countable

TOPIC = "events"


@pytest.fixture
def bus() -> MemoryBus:
    """A topic of two partitions, of which MemoryBus fills the first."""
    made = MemoryBus()
    made.ensure(TopicSpec(TOPIC, 2))
    return made


def fill(bus: MemoryBus, *values: bytes | None) -> None:
    """Append records to one partition."""
    for value in values:
        bus.writer().send(TOPIC, value, b"key")


def row(kind: str | None, first: int, last: int, partition: int = 0) -> dict[str, Any]:
    """What Spark counts."""
    return dict(
        countable(
            {"emoji_type": kind, "partition": partition, "count": 1, "first": first, "last": last, "identified": 0}
        )
    )


def reaction(kind: object) -> bytes:
    """A record as ingest writes it."""
    return json.dumps({"user_id": "ada", "emoji_type": kind}).encode()


def test_records_that_are_no_reactions_are_found_with_their_reasons(bus: MemoryBus) -> None:
    """Between reactions, a null record of a probe, and records of other windows."""
    fill(bus, b"earlier", reaction("😂"), b"nonsense", None, reaction("text"), reaction(7), reaction("❤"), b"later")
    partition = next(number for number, end in bus.ends(TOPIC).items() if end)
    rows = [row("😂", 1, 1, partition), row(None, 2, 5, partition), row("text", 4, 4, partition)]
    found = {record.offset: reason for record, reason in unused(bus, TOPIC, rows)}
    assert found.keys() == {2, 4, 5}
    assert found[4] == "not a reaction: emoji_type is 'text', which is no emoji"
    assert all(reason.startswith("not a reaction: ") for reason in found.values())


def test_window_of_reactions_reads_nothing(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traffic without foreign records costs nothing."""
    monkeypatch.setattr(MemoryBus, "reader", pytest.fail)
    assert list(unused(bus, TOPIC, [row("😂", 0, 9)])) == []


def test_flood_gives_its_first_records(bus: MemoryBus) -> None:
    """At most MOST of a window."""
    fill(bus, *[b"nonsense"] * (module.MOST + 20))
    partition = next(number for number, end in bus.ends(TOPIC).items() if end)
    rows = [row(None, 0, module.MOST + 19, partition)]
    assert [record.offset for record, _ in unused(bus, TOPIC, rows)] == list(range(module.MOST))


def test_records_that_kafka_has_removed_are_not_waited_for_long(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window goes on without them."""
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    assert list(unused(bus, TOPIC, [row(None, 0, 3)])) == []


def test_record_that_spark_counts_is_no_letter(bus: MemoryBus) -> None:
    """A strict reader refuses it. Sent again from its letter it would count twice."""
    fill(bus, b"nonsense", reaction("😂") + b" and more", b'{"emoji_type":7,"emoji_type":"\xf0\x9f\x98\x82"}', b"[]")
    partition = next(number for number, end in bus.ends(TOPIC).items() if end)
    found = {record.offset for record, _ in unused(bus, TOPIC, [row(None, 0, 3, partition)])}
    assert found == {0, 3}
