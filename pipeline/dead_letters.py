"""Dead letters: the records that a stage could not use, kept with the reason in a topic of their own.

They are read with `python -m pipeline dead-letters`, which can also send them to their topics again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import NamedTuple

import msgspec

from pipeline import logs
from pipeline.bus.base import FLUSH_TIMEOUT_S, Bus, Record, Writer
from pipeline.bus.records import keyed
from pipeline.bus.topics import Topics
from pipeline.errors import KafkaUnreachableError
from pipeline.messages import DeadLetter, decode_dead_letter, encode

log = logs.get(__name__)

PER_S_MAX = 100
"""Letters that a stage writes in a second; a flood of foreign records would fill the topic with copies of itself."""
VALUE_MAX_BYTES = 65_536
WAITING_MAX = 2 * PER_S_MAX
"""Letters that wait for Kafka."""


class DeadLetters:
    """Writes one stage's dead letters, from a thread: `put` never waits and never raises, so a letter stops no stage.

    The topic has to exist. The connection opens at the first letter, and at most WAITING_MAX letters wait for it.
    `written` counts the letters that Kafka has, `left_out` those beyond PER_S_MAX or WAITING_MAX, and those that Kafka
    did not take. It is safe for threads.
    """

    def __init__(self, bus: Bus, names: Topics, stage: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._topic = names.dead_letters.name
        self._stage = stage
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._waiting: deque[DeadLetter] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._second, self._in_second = 0, 0
        self.written = self.left_out = 0

    def put(self, topic: str, record: Record, reason: str) -> None:
        """Keep a record of `topic` that was not used, for `reason`."""
        with self._changed:
            if self._closed or len(self._waiting) >= WAITING_MAX or not self._may_write():
                self.left_out += 1
                return
            self._waiting.append(self._letter(topic, record, reason))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Write what waits, and close the connection; give up after `timeout_s`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _may_write(self) -> bool:
        second = int(self._clock_s())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second <= PER_S_MAX

    def _letter(self, topic: str, record: Record, reason: str) -> DeadLetter:
        value = record.value if record.value is None else record.value[:VALUE_MAX_BYTES]
        return DeadLetter(
            stage=self._stage,
            topic=topic,
            partition=record.partition,
            offset=record.offset,
            reason=reason,
            key=record.key,
            value=value,
            size=len(record.value or b""),
        )

    def _run(self) -> None:
        writer: Writer | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    break
                letter = self._waiting.popleft()
            try:
                writer = writer or self._bus.writer()
                writer.send(self._topic, encode(letter), letter.id.encode())
                writer.flush()
            except Exception as error:
                # Whatever the error, the next letter may succeed.
                log.warning("a dead letter was not written", id=letter.id, reason=str(error))
                with self._changed:
                    self.left_out += 1
                    if self._closed:
                        break
            else:
                with self._changed:
                    self.written += 1
        if writer is not None:
            writer.close()


def kept(records: Iterable[Record]) -> list[DeadLetter]:
    """Return the letters of the topic `dead-letters` that were not taken out, the oldest first, each once."""
    found: dict[str, DeadLetter] = {}
    for name, letter in keyed(records, decode_dead_letter, "dead letter"):
        found.pop(name, None)
        if letter is not None:
            found[name] = letter
    return list(found.values())


class Replayed(NamedTuple):
    """What `replay` did: the number of records that were sent, and the letters that stay, each with the reason."""

    sent: int
    stay: list[tuple[DeadLetter, str]]


def replay(bus: Bus, names: Topics, letters: Iterable[DeadLetter]) -> Replayed:
    """Send the records of `letters` to their topics again, each once, and take each record's letters out after it.

    A letter stays if it holds only the beginning of its record, or if this Kafka does not take the record: it may have
    no such topic, as for the feed of a cluster with a Kafka of its own (`feed_bootstrap_servers`). Raises
    KafkaUnreachableError if Kafka does not take the end of a letter either; then one letter stays whose record was
    sent.
    """
    by_topic: dict[str, dict[tuple[int, int], list[DeadLetter]]] = {}
    stay: list[tuple[DeadLetter, str]] = []
    for letter in letters:
        if letter.size > len(letter.value or b""):
            stay.append((letter, f"it holds only the beginning of its record of {letter.size} bytes"))
        else:
            by_topic.setdefault(letter.topic, {}).setdefault((letter.partition, letter.offset), []).append(letter)
    sent = 0
    with closing(bus.writer()) as writer:
        for topic, records in by_topic.items():
            try:
                bus.ends(topic)
            except KafkaUnreachableError as error:
                stay += [(letter, str(error)) for same in records.values() for letter in same]
                continue
            for same in records.values():
                try:
                    writer.send(topic, same[0].value, same[0].key)
                    writer.flush()
                except KafkaUnreachableError as error:
                    # It raises if Kafka is away: the next records would each wait in vain.
                    bus.ends(names.dead_letters.name)
                    stay += [(letter, str(error)) for letter in same]
                    continue
                sent += 1
                for letter in same:
                    writer.send(names.dead_letters.name, None, letter.id.encode())
                writer.flush()
    return Replayed(sent, stay)


def shown(letter: DeadLetter) -> dict[str, object]:
    """Return a letter as the command prints it: its record as text if it is UTF-8."""
    texts: dict[str, object] = msgspec.to_builtins(letter)
    for name in ("key", "value"):
        with suppress(UnicodeDecodeError):
            part = getattr(letter, name)
            texts[name] = None if part is None else part.decode()
    return texts
