"""Dead letters: the records that a stage could not use, kept with the reason in a topic of their own.

They are read with `python -m pipeline dead-letters`, which can also send them to their topics again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress

import msgspec

from pipeline import logs
from pipeline.bus.base import Bus, Record, Writer
from pipeline.bus.records import keyed
from pipeline.bus.topics import Topics
from pipeline.errors import EmoStreamError
from pipeline.messages import DeadLetter, decode_dead_letter, encode

log = logs.get(__name__)

PER_S_MAX = 100
"""Letters that a stage writes in a second; a flood of foreign records would fill the topic with copies of itself."""
VALUE_MAX_BYTES = 65_536


class DeadLetters:
    """Writes one stage's dead letters. It connects at the first one, and never raises: a letter must not stop a stage.

    The topic has to exist. `written` and `left_out` count the letters, and those beyond PER_S_MAX or that were not
    taken. It is safe for threads.
    """

    def __init__(self, bus: Bus, names: Topics, stage: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._topic = names.dead_letters.name
        self._stage = stage
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._writer: Writer | None = None
        self._second, self._in_second = 0, 0
        self.written = self.left_out = 0

    def put(self, topic: str, record: Record, reason: str) -> None:
        """Keep a record of `topic` that was not used, for `reason`."""
        with self._lock:
            if self._may_write():
                self._write(self._letter(topic, record, reason))
            else:
                self.left_out += 1

    def close(self) -> None:
        """Write what is queued, and close the connection."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()

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

    def _write(self, letter: DeadLetter) -> None:
        try:
            if self._writer is None:
                self._writer = self._bus.writer()
            self._writer.send(self._topic, encode(letter), letter.id.encode())
        except EmoStreamError as error:
            self.left_out += 1
            log.warning("a dead letter was not written", id=letter.id, reason=str(error))
        else:
            self.written += 1


def kept(records: Iterable[Record]) -> list[DeadLetter]:
    """Return the letters of the topic `dead-letters` that were not taken out, the oldest first, each once."""
    found: dict[str, DeadLetter] = {}
    for name, letter in keyed(records, decode_dead_letter, "dead letter"):
        found.pop(name, None)
        if letter is not None:
            found[name] = letter
    return list(found.values())


def replay(bus: Bus, names: Topics, letters: Iterable[DeadLetter]) -> tuple[int, list[DeadLetter]]:
    """Send the records of `letters` to their topics again, each once, and take the letters out.

    Returns how many were sent, and the letters that stay, because they hold only the beginning of their record. Raises
    KafkaUnreachableError; then a letter may stay whose record was sent.
    """
    by_record: dict[tuple[str, int, int], list[DeadLetter]] = {}
    cut: list[DeadLetter] = []
    for letter in letters:
        if letter.size > len(letter.value or b""):
            cut.append(letter)
        else:
            by_record.setdefault((letter.topic, letter.partition, letter.offset), []).append(letter)
    with closing(bus.writer()) as writer:
        for (topic, _, _), same in by_record.items():
            writer.send(topic, same[0].value, same[0].key)
        writer.flush()
        for same in by_record.values():
            for letter in same:
                writer.send(names.dead_letters.name, None, letter.id.encode())
        writer.flush()
    return len(by_record), cut


def shown(letter: DeadLetter) -> dict[str, object]:
    """Return a letter as the command prints it: its record as text if it is UTF-8."""
    texts: dict[str, object] = msgspec.to_builtins(letter)
    for name in ("key", "value"):
        with suppress(UnicodeDecodeError):
            part = getattr(letter, name)
            texts[name] = None if part is None else part.decode()
    return texts
