"""The fan-out under any order of windows, connections, slow clients and resumes, compared with a plain list."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.messages import TypeCount, Window
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.frames import EARLIEST, OLDEST, EventId, Missed
from tests.harness.stages.doubles import MemoryStreamSink as Sink

CLIENTS = st.sampled_from("abc")
RING_BYTES = 3_000


class Connection:
    """A stream, its sink, and the place in the list of all windows from which it is owed them."""

    def __init__(self, fanout: Fanout, client: str, position: int, room: int) -> None:
        self.position = position
        self.sink = Sink(room)
        self.stream = Stream(client, self.sink)
        fanout.join(self.stream, position)

    def ids(self) -> list[str]:
        """What it received."""
        return [data.event_id for data in self.sink.sent]


class Resuming(RuleBasedStateMachine):
    """`log` has every window that was published; `last` the last id that each client has received."""

    @initialize(ring_max=st.integers(1, 8), queue_max=st.integers(1, 8))
    def start(self, ring_max: int, queue_max: int) -> None:
        """Begin with no window."""
        self.queue_max = queue_max
        self.ring_max = max(ring_max, queue_max)
        self.fanout = Fanout(ring_max, queue_max, RING_BYTES)
        self.log: list[str] = []
        self.epoch, self.number = 0, 0
        self.connections: dict[str, Connection] = {}
        self.last: dict[str, str] = {}

    @rule(new_epoch=st.booleans(), kinds=st.sampled_from([0, 1, 40]), times=st.integers(1, 5))
    def publish(self, new_epoch: bool, kinds: int, times: int) -> None:
        """Publish windows, small or large; sometimes of a new epoch."""
        if new_epoch and self.log:
            self.epoch, self.number = self.epoch + 1, 0
        for _ in range(times):
            cells = [TypeCount(f"type-{index}", 1, 1) for index in range(kinds)]
            window = Window(f"e{self.epoch}", self.number, 0, 0, {}, kinds, cells)
            self.fanout.publish(window)
            self.log.append(window.event_id)
            self.number += 1

    @rule(client=CLIENTS, room=st.integers(0, 10))
    def connect(self, client: str, room: int) -> None:
        """Connect, and resume if the client has received something: it misses nothing, or is told so."""
        self.leave(client)
        last = self.last.get(client)
        position: int | Missed = self.fanout.head
        if last is not None:
            epoch, _, number = last.rpartition(":")
            position = self.fanout.position_after(EventId(epoch, int(number)))
            due, kept = self.log.index(last) + 1, self.log[len(self.log) - self.fanout.kept :]
            if isinstance(position, Missed):
                assert due < len(self.log) - len(kept) or not any(each.startswith(f"{epoch}:") for each in kept)
            else:
                assert position == due
        start = self.fanout.head if isinstance(position, Missed) else position
        self.connections[client] = Connection(self.fanout, client, start, room)

    @rule(client=CLIENTS)
    def leave(self, client: str) -> None:
        """Close the client's connection; it remembers the last id."""
        connection = self.connections.pop(client, None)
        if connection is not None:
            self.fanout.leave(connection.stream)
            if connection.ids():
                self.last[client] = connection.ids()[-1]

    @precondition(lambda self: self.connections)
    @rule(client=CLIENTS, room=st.integers(1, 20))
    def read(self, client: str, room: int) -> None:
        """Let a slow client take more."""
        if (connection := self.connections.get(client)) is not None:
            connection.sink.room = room
            self.fanout.catch_up(connection.stream)

    @rule()
    def ask_for_what_is_kept(self) -> None:
        """From the beginning if it is kept, and from the oldest that is."""
        oldest = len(self.log) - self.fanout.kept
        assert self.fanout.position_after(OLDEST) == oldest
        first = self.fanout.position_after(EARLIEST)
        assert first == 0 if oldest == 0 else isinstance(first, Missed)

    @invariant()
    def bounds_hold(self) -> None:
        """Of the ring in windows and bytes; no stream waits for more than it may."""
        assert self.fanout.head == len(self.log)
        assert self.fanout.kept <= self.ring_max
        held = sum(len(message) for _, message in self.fanout._ring)
        assert held == self.fanout._ring_bytes
        assert held <= RING_BYTES or self.fanout.kept == 1
        assert self.fanout.last_event_id is None or str(self.fanout.last_event_id) == self.log[-1]

    @invariant()
    def each_client_has_its_windows_in_order_and_once(self) -> None:
        """A piece of the list from where it joined; all of it if it takes more and was not cut off."""
        for client, connection in self.connections.items():
            ids, position = connection.ids(), connection.position
            assert ids == self.log[position : position + len(ids)]
            if connection.stream.ended is None:
                assert client in self.fanout.clients()
                waiting = len(self.log) - position - len(ids)
                assert not waiting or connection.sink.is_full()
                assert len(self.log) - max(position + len(ids), connection.stream.joined) <= self.queue_max
                assert connection.stream.cursor == position + len(ids)
            else:
                assert connection.stream.ended == "slow"
                assert connection.sink.aborted


TestResuming = Resuming.TestCase
TestResuming.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
