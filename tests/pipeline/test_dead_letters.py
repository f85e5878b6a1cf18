"""Dead letters: who writes them, how many, and how they are sent again."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pipeline import __main__ as command
from pipeline import main_publisher
from pipeline.bus.base import Record
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.dead_letters import PER_S_MAX, VALUE_MAX_BYTES, DeadLetters, kept, replay, shown
from pipeline.errors import KafkaUnreachableError
from pipeline.forwarding import Forwarder
from pipeline.messages import DeadLetter, Window, encode
from pipeline.settings import Settings
from pipeline.subscriber.state import Subscriber

NAMES = topics(Settings())
LETTERS = NAMES.dead_letters.name


@pytest.fixture
def bus() -> MemoryBus:
    """A bus with every topic of a chain."""
    made = MemoryBus()
    made.ensure(NAMES.events, NAMES.aggregates, NAMES.clients, NAMES.subscribers, NAMES.clusters, NAMES.dead_letters)
    made.ensure(NAMES.cluster("1"), NAMES.feed("1"))
    return made


def read(bus: MemoryBus) -> list[DeadLetter]:
    """Return the letters that are kept."""
    return kept(bus.tail(LETTERS, 10_000))


def window(number: int) -> Window:
    """A window of one epoch."""
    return Window("e", number, 1, 2, {"emoji-events-0": (number, number)}, 0, [])


def foreign(offset: int, value: bytes | None = b"nonsense") -> Record:
    """A record of another program."""
    return Record(0, offset, 0, b"key", value)


def test_forwarder_keeps_what_it_cannot_forward(bus: MemoryBus) -> None:
    """A record that is no window, and a window whose number cannot follow; a copy of a window is no such thing."""
    source, output = NAMES.aggregates.name, NAMES.cluster("1").name
    far = msgspec.structs.replace(window(2**62), offsets={})
    for value in (encode(window(0)), b"nonsense", encode(window(0)), encode(far)):
        bus.writer().send(source, value, b"e")
    letters = DeadLetters(bus, NAMES, "main-publisher")
    Forwarder("main-publisher", bus, source, bus, {output: main_publisher.for_clusters}, letters=letters).step(
        bus.tail(source, 9)
    )
    found = [(letter.stage, letter.topic, letter.offset, letter.reason[:12]) for letter in read(bus)]
    assert found == [
        ("main-publisher", source, 1, "not a Window"),
        ("main-publisher", source, 3, "the number o"),
    ]
    assert read(bus)[0].value == b"nonsense"


def test_subscriber_keeps_what_it_cannot_use(bus: MemoryBus) -> None:
    """Of its feed and of the registrations."""
    subscriber = Subscriber(Settings(), "http://s", letters=DeadLetters(bus, NAMES, "subscriber-1-1"))
    subscriber.take_feed([foreign(5)], 1)
    subscriber.take_registrations([foreign(6)])
    assert [(letter.topic, letter.offset) for letter in read(bus)] == [
        (NAMES.feed("1").name, 5),
        (NAMES.clients.name, 6),
    ]


def test_stage_that_reads_a_record_again_writes_no_second_letter(bus: MemoryBus) -> None:
    """Another stage that reads the same record writes one of its own."""
    for stage in ("a", "a", "b"):
        DeadLetters(bus, NAMES, stage).put("feed", foreign(5), "why")
    assert [letter.stage for letter in read(bus)] == ["a", "b"]


def test_flood_gets_a_bounded_number_of_letters_in_a_second(bus: MemoryBus) -> None:
    """The others are counted."""
    now_s = 7.5
    letters = DeadLetters(bus, NAMES, "stage", lambda: now_s)
    for offset in range(PER_S_MAX + 50):
        letters.put("feed", foreign(offset), "why")
    assert (letters.written, letters.left_out, len(read(bus))) == (PER_S_MAX, 50, PER_S_MAX)
    now_s = 8.0
    letters.put("feed", foreign(999), "why")
    assert len(read(bus)) == PER_S_MAX + 1


def test_letter_that_kafka_does_not_take_stops_no_stage(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and the next one is tried."""

    def refuse(*_: object) -> None:
        raise KafkaUnreachableError("no room")

    letters = DeadLetters(bus, NAMES, "stage")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryBus, "writer", refuse)
        letters.put("feed", foreign(1), "why")
    letters.put("feed", foreign(2), "why")
    assert (letters.written, letters.left_out) == (1, 1)
    assert [letter.offset for letter in read(bus)] == [2]


def test_records_are_sent_again_once_and_their_letters_taken_out(bus: MemoryBus) -> None:
    """Two stages may have kept the same record; of a long record the letter has the beginning only, and stays."""
    topic = NAMES.clients.name
    long = foreign(7, b"x" * (VALUE_MAX_BYTES + 1))
    for stage, record in (("a", foreign(5)), ("b", foreign(5)), ("a", foreign(6, None)), ("a", long)):
        DeadLetters(bus, NAMES, stage).put(topic, record, "why")
    sent, cut = replay(bus, NAMES, read(bus))
    assert sent == 2
    assert [(letter.offset, letter.size, len(letter.value or b"")) for letter in cut] == [
        (7, VALUE_MAX_BYTES + 1, VALUE_MAX_BYTES)
    ]
    assert [(record.key, record.value) for record in bus.tail(topic, 9)] == [(b"key", b"nonsense"), (b"key", None)]
    assert [letter.offset for letter in read(bus)] == [7]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (b"k", "❤".encode(), {"key": "k", "value": "❤"}),
        (None, None, {"key": None, "value": None}),
        (b"\xff", b"\xfe\x00", {"key": "/w==", "value": "/gA="}),
    ],
)
def test_letters_are_shown_as_text_where_they_are_text(key: Any, value: Any, text: dict[str, Any]) -> None:
    """Other bytes in base64."""
    letter = DeadLetter("spark", "emoji-events", 0, 17, "why", key, value, len(value or b""))
    assert shown(letter).items() >= text.items()


def test_command_prints_the_letters_and_sends_them_again(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line of JSON each; with --replay the records are in their topics again."""
    monkeypatch.setattr(command.logs, "configure", lambda *_: None)
    monkeypatch.setattr("pipeline.bus.kafka.KafkaBus", lambda *_: bus)
    monkeypatch.setattr(bus, "read", lambda topic: bus.tail(topic, 999), raising=False)
    DeadLetters(bus, NAMES, "spark").put(NAMES.events.name, foreign(3), "not a reaction: no")
    for replays in ([], ["--replay"], []):
        with pytest.raises(SystemExit) as ended:
            command.main(["dead-letters", "--bootstrap-servers", "127.0.0.1:9092", *replays])
        assert ended.value.code == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [(line["stage"], line["offset"], line["value"]) for line in lines] == [("spark", 3, "nonsense")] * 2
    assert "1 records sent again" in printed.err
    assert [record.value for record in bus.tail(NAMES.events.name, 9)] == [b"nonsense"]


def test_command_needs_a_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """It names the folder without one."""
    monkeypatch.setattr(command.logs, "configure", lambda *_: None)
    with pytest.raises(SystemExit, match="has no running chain"):
        command.main(["dead-letters", "--run-dir", str(tmp_path)])
