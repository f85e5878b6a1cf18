"""Doubles of what a stage writes to and reads from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pipeline.messages import Event, decode_event, decode_window
from pipeline.sse import SseParser
from pipeline.subscriber.frames import Wire
from tests.harness.waiting import DEADLINE_S

SECOND_NS = 1_000_000_000


class Clock:
    """A clock in epoch nanoseconds that stands still until a test moves it."""

    def __init__(self, now_ns: int | None = None) -> None:
        self.now_ns = time.time_ns() if now_ns is None else now_ns

    def __call__(self) -> int:
        """The time."""
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Move it on."""
        self.now_ns += int(seconds * SECOND_NS)


class MemorySink:
    """Ingest's way to Kafka, in memory: keeps each flush; acknowledges at once, or not while it is held.

    With a `refusal` it refuses all for that reason.
    """

    lost = errors = 0

    def __init__(self, held: bool = False, refusal: str = "") -> None:
        self.changed = threading.Condition()
        self.refusal = refusal
        self.refusals: dict[bytes, str] = {}
        self.flushes: list[list[bytes]] = []
        self.outstanding = 0
        self.held = held
        self.waits = 0
        self.closed = False

    def write(self, values: Sequence[bytes]) -> None:
        """Take a flush."""
        with self.changed:
            self.flushes.append(list(values))
            if self.refusal:
                self.refusals |= dict.fromkeys(values, self.refusal)
            self.outstanding += len(values)
            self.changed.notify_all()

    def wait(self, timeout_s: float) -> int:
        """Acknowledge, or say how many records are outstanding."""
        with self.changed:
            self.waits += 1
            self.changed.notify_all()
            if self.changed.wait_for(lambda: not self.held, min(timeout_s, 0.01)):
                self.outstanding = 0
            return self.outstanding

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    def hold(self) -> None:
        """Acknowledge nothing, from now on."""
        with self.changed:
            self.held = True

    def release(self) -> None:
        """Acknowledge everything, from now on."""
        with self.changed:
            self.held = False
            self.changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at whenever something happens to the sink."""
        with self.changed:
            assert self.changed.wait_for(lambda: bool(condition()), DEADLINE_S), f"not within {DEADLINE_S:g} s"

    @property
    def values(self) -> list[bytes]:
        """The records, in the order in which they were written."""
        return [value for flush in self.flushes for value in flush]

    @property
    def events(self) -> list[Event]:
        """What a consumer would read."""
        return [decode_event(value) for value in self.values]


class MemoryStreamSink:
    """A stream's connection: keeps what it was given, and takes nothing more after `room` writes."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.sent: list[Wire] = []
        self.aborted = False
        self.stuck = 0.0

    def write(self, data: Wire) -> None:
        """Keep it."""
        self.sent.append(data)
        self.room -= 1

    def is_full(self) -> bool:
        """Whether the room is used up."""
        return self.room <= 0

    def abort(self) -> None:
        """Remember it."""
        self.aborted = True

    def stuck_s(self, now_s: float) -> float:
        """How long nothing was taken."""
        return self.stuck

    def windows(self) -> list[int]:
        """The numbers of the windows received, in order."""
        events = SseParser().feed(b"".join(data.plain for data in self.sent))
        return [decode_window(event.data.encode()).window for event in events if event.event == "window"]
