"""One client of the delivery benchmark's crowd, and its stream: it records every id and its time of receipt."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Iterator
from typing import NamedTuple, cast

from experiments.bench.delivery.wire import Event, EventReader


class Join(NamedTuple):
    """One connection of a client, epoch ns: when it was due, was redirected to `address`, and got its first byte."""

    due_ns: int
    sent_ns: int
    opened_ns: int
    address: str


class Received(NamedTuple):
    """All that one client received: the windows' numbers in order, and when each was complete, epoch ns.

    `strange` counts events that are not windows of its feed: resets, and ids of another epoch.
    """

    joins: list[Join]
    numbers: array[int]
    received_ns: array[int]
    strange: int


class Client:
    """One client, registered or about to register."""

    __slots__ = ("client_id", "epoch", "got", "home", "joins", "last", "numbers", "strange", "stream", "task", "token")

    def __init__(self, epoch: bytes) -> None:
        self.epoch = epoch
        self.client_id = self.token = self.home = self.last = ""
        self.joins: list[Join] = []
        self.numbers, self.got = array("q"), array("q")
        self.strange = 0
        self.stream: Stream | None = None
        self.task: asyncio.Task[None] | None = None

    def take(self, event: Event, now_ns: int) -> None:
        """Record an event."""
        epoch, _, number = event.event_id.rpartition(b":")
        if event.kind == b"window" and epoch == self.epoch and number.isdigit():
            self.numbers.append(int(number))
            self.got.append(now_ns)
        elif event.kind is not None:
            self.strange += 1
        self.last = event.event_id.decode()

    def headers(self) -> Iterator[str]:
        """Yield the headers of this client's requests."""
        yield f"Authorization: Bearer {self.token}"
        yield "Accept: text/event-stream"
        if self.last:
            yield f"Last-Event-ID: {self.last}"

    def received(self) -> Received:
        """Return all that it received."""
        return Received(self.joins, self.numbers, self.got, self.strange)


class Stream(asyncio.Protocol):
    """One connection to a subscriber; `ended` is done when it closes, `refused` is the status of a refusal, or 0."""

    def __init__(self, client: Client, asked: bytes, join: Join) -> None:
        self._client = client
        self._asked = asked
        self._join = join
        self._reader = EventReader()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request (asyncio calls this)."""
        # uvloop's transports have asyncio.Transport's methods without being a subclass.
        self._transport = cast(asyncio.Transport, transport)
        self.close = self._transport.close
        self._transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        """Record the events received (asyncio calls this)."""
        now_ns = time.time_ns()
        is_first = not self._reader.status
        for event in self._reader.feed(data):
            self._client.take(event, now_ns)
        if is_first and self._reader.status:
            if self._reader.status == 200:
                self._client.joins.append(self._join._replace(opened_ns=now_ns))
                self._client.stream = self
            else:
                self.refused = self._reader.status
                self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Set `ended` (asyncio calls this)."""
        if self._client.stream is self:
            self._client.stream = None
        if not self.ended.done():
            self.ended.set_result(None)
