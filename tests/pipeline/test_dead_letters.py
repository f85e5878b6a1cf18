"""Dead letters: who writes them, how many, and how they are sent again."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import Any

import msgspec
import pytest

from pipeline import __main__ as command
from pipeline import main_publisher
from pipeline.bus.base import Record
from pipeline.bus.memory import MemoryBus, MemoryWriter
from pipeline.bus.topics import topics
from pipeline.dead_letters import PER_S_MAX, VALUE_MAX_BYTES, WAITING_MAX, DeadLetters, kept, replay, shown
from pipeline.errors import KafkaUnreachableError
from pipeline.forwarding import Forwarder
from pipeline.messages import DeadLetter, Window, encode
from pipeline.settings import Settings
from pipeline.subscriber.state import Subscriber
from tests.harness.waiting import until

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


def keep(bus: MemoryBus, stage: str, topic: str, *records: Record) -> None:
    """Write one stage's letters of these records."""
    with closing(DeadLetters(bus, NAMES, stage)) as letters:
        for record in records:
            letters.put(topic, record, "why")


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
    letters.close()
    found = [(letter.stage, letter.topic, letter.offset, letter.reason[:12]) for letter in read(bus)]
    assert found == [
        ("main-publisher", source, 1, "not a Window"),
        ("main-publisher", source, 3, "number and o"),
    ]
    assert read(bus)[0].value == b"nonsense"


def test_subscriber_keeps_what_it_cannot_use(bus: MemoryBus) -> None:
    """Of its feed and of the registrations."""
    with closing(DeadLetters(bus, NAMES, "subscriber-1-1")) as letters:
        subscriber = Subscriber(Settings(), "http://s", letters=letters)
        subscriber.take_feed([foreign(5)], 1)
        subscriber.take_registrations([foreign(6)])
    assert [(letter.topic, letter.offset) for letter in read(bus)] == [
        (NAMES.feed("1").name, 5),
        (NAMES.clients.name, 6),
    ]


def test_stage_that_reads_a_record_again_writes_no_second_letter(bus: MemoryBus) -> None:
    """Another stage that reads the same record writes one of its own."""
    for stage in ("a", "a", "b"):
        keep(bus, stage, "feed", foreign(5))
    assert [letter.stage for letter in read(bus)] == ["a", "b"]


def test_flood_gets_a_bounded_number_of_letters_in_a_second(bus: MemoryBus) -> None:
    """The others are counted."""
    now_s = 7.5
    letters = DeadLetters(bus, NAMES, "stage", lambda: now_s)
    for offset in range(PER_S_MAX + 50):
        letters.put("feed", foreign(offset), "why")
    until(lambda: letters.written == PER_S_MAX, "the letters of one second are written")
    assert (letters.left_out, len(read(bus))) == (50, PER_S_MAX)
    now_s = 8.0
    letters.put("feed", foreign(999), "why")
    letters.close()
    assert len(read(bus)) == PER_S_MAX + 1


def test_letter_that_kafka_does_not_take_stops_no_stage(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and the next one is tried."""

    def refuse(*_: object) -> None:
        raise KafkaUnreachableError("no room")

    letters = DeadLetters(bus, NAMES, "stage")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryBus, "writer", refuse)
        letters.put("feed", foreign(1), "why")
        until(lambda: letters.left_out == 1, "the letter is given up")
    letters.put("feed", foreign(2), "why")
    letters.close()
    assert (letters.written, letters.left_out) == (1, 1)
    assert [letter.offset for letter in read(bus)] == [2]


def test_stage_does_not_wait_for_the_connection_of_its_letters(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Kafka is away a bounded number of letters waits; the others are counted, and those are written later."""
    asked, answered = threading.Event(), threading.Event()
    connect = MemoryBus.writer

    def late(self: MemoryBus) -> MemoryWriter:
        asked.set()
        assert answered.wait(60)
        return connect(self)

    monkeypatch.setattr(MemoryBus, "writer", late)
    seconds = iter(range(10_000))
    letters = DeadLetters(bus, NAMES, "stage", lambda: next(seconds))
    letters.put("feed", foreign(0), "why")
    assert asked.wait(60)
    for offset in range(1, WAITING_MAX + 8):
        letters.put("feed", foreign(offset), "why")
    assert (letters.written, letters.left_out) == (0, 7)
    answered.set()
    letters.close()
    assert [letter.offset for letter in read(bus)] == list(range(WAITING_MAX + 1))
    assert letters.written == WAITING_MAX + 1


def test_closing_gives_up_a_connection_that_does_not_come(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage ends though Kafka is away; what is put afterwards is counted."""
    answered = threading.Event()

    def refuse(_: MemoryBus) -> MemoryWriter:
        assert answered.wait(60)
        raise KafkaUnreachableError("away")

    monkeypatch.setattr(MemoryBus, "writer", refuse)
    letters = DeadLetters(bus, NAMES, "stage")
    for offset in range(3):
        letters.put("feed", foreign(offset), "why")
    letters.close(timeout_s=0.01)
    letters.put("feed", foreign(9), "why")
    assert letters.left_out == 1
    answered.set()
    thread = letters._thread
    assert thread is not None
    until(lambda: not thread.is_alive(), "the thread has ended")
    assert letters.written == 0


def test_records_are_sent_again_once_and_their_letters_taken_out(bus: MemoryBus) -> None:
    """Two stages may have kept the same record; of a long record the letter has the beginning only, and stays."""
    topic = NAMES.clients.name
    long = foreign(7, b"x" * (VALUE_MAX_BYTES + 1))
    for stage, record in (("a", foreign(5)), ("b", foreign(5)), ("a", foreign(6, None)), ("a", long)):
        keep(bus, stage, topic, record)
    sent, ((stays, reason),) = replay(bus, NAMES, read(bus))
    assert sent == 2
    assert (stays.offset, stays.size, len(stays.value or b"")) == (7, VALUE_MAX_BYTES + 1, VALUE_MAX_BYTES)
    assert reason == f"it holds only the beginning of its record of {VALUE_MAX_BYTES + 1} bytes"
    assert [(record.key, record.value) for record in bus.tail(topic, 9)] == [(b"key", b"nonsense"), (b"key", None)]
    assert [letter.offset for letter in read(bus)] == [7]


class RefusingWriter(MemoryWriter):
    """A writer of a Kafka that refuses the record `huge`, and says so at the flush."""

    refused = False

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Append one record, unless it is refused."""
        self.refused = value == b"huge"
        if not self.refused:
            super().send(topic, value, key)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Raise if the last record was refused."""
        if self.refused:
            self.refused = False
            raise KafkaUnreachableError("too large")


def test_letters_that_cannot_go_stay_and_hold_up_no_other(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose topic is on another Kafka, and one that Kafka refuses; a second try sends no record twice."""
    monkeypatch.setattr(MemoryBus, "writer", lambda self: RefusingWriter(self._topics, self._changed))
    topic, elsewhere = NAMES.events.name, NAMES.feed("9").name
    keep(bus, "subscriber-9-1", elsewhere, foreign(1))
    keep(bus, "spark", topic, foreign(2), foreign(3, b"huge"), foreign(4))
    sent, stay = replay(bus, NAMES, read(bus))
    assert sent == 2
    reasons = {
        f"{elsewhere}-0@1 subscriber-9-1": f"topic '{elsewhere}' does not exist",
        f"{topic}-0@3 spark": "too large",
    }
    assert {letter.id: reason for letter, reason in stay} == reasons
    assert {letter.id for letter in read(bus)} == set(reasons)
    assert replay(bus, NAMES, read(bus)) == (0, stay)
    assert len(bus.tail(topic, 99)) == 2


def test_replay_ends_when_kafka_is_away(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries no further record, and no letter is taken out."""

    class Away(MemoryWriter):
        """A writer whose Kafka goes away at the first record."""

        def flush(self, timeout_s: float = 10.0) -> None:
            """Fail, and so does the bus from now on."""
            monkeypatch.setattr(bus, "ends", gone)
            raise KafkaUnreachableError("not acknowledged")

    def gone(topic: str) -> dict[int, int]:
        raise KafkaUnreachableError(f"no Kafka answers for {topic}")

    topic = NAMES.events.name
    keep(bus, "spark", topic, foreign(2), foreign(3))
    monkeypatch.setattr(MemoryBus, "writer", lambda self: Away(self._topics, self._changed))
    with pytest.raises(KafkaUnreachableError, match=f"no Kafka answers for {LETTERS}"):
        replay(bus, NAMES, read(bus))
    assert len(bus.tail(topic, 99)) == 1
    assert len(read(bus)) == 2


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
    keep(bus, "spark", NAMES.events.name, foreign(3))
    keep(bus, "subscriber-9-1", NAMES.feed("9").name, foreign(4))
    for replays in ([], ["--replay"], []):
        with pytest.raises(SystemExit) as ended:
            command.main(["dead-letters", "--bootstrap-servers", "127.0.0.1:9092", *replays])
        assert ended.value.code == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    first, stays = ("spark", 3, "nonsense"), ("subscriber-9-1", 4, "nonsense")
    found = [(line["stage"], line["offset"], line["value"]) for line in lines]
    assert found == [first, stays, first, stays, stays]
    assert "1 records sent again; 1 letters stay" in printed.err
    assert f"the letter '{NAMES.feed('9').name}-0@4 subscriber-9-1' stays: topic" in printed.err
    assert [record.value for record in bus.tail(NAMES.events.name, 9)] == [b"nonsense"]


def test_command_needs_a_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """It names the folder without one."""
    monkeypatch.setattr(command.logs, "configure", lambda *_: None)
    with pytest.raises(SystemExit, match="has no running chain"):
        command.main(["dead-letters", "--run-dir", str(tmp_path)])
