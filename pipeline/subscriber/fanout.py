"""The fan-out core: encodes every window once, holds it in one ring, writes it to every stream.

A stream owns no queue: the windows between its cursor and the end of the shared ring wait for it. So a waiting window
costs no memory per client, and a replay starts further back in the ring. A client that falls too far behind is cut off
and can resume. The core knows a stream only by its `StreamSink`, runs in one event loop, and waits only in `resolve`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from itertools import islice
from typing import Protocol

from pipeline import logs
from pipeline.messages import Window, encode
from pipeline.subscriber import frames
from pipeline.subscriber.frames import EventId, Missed, Wire

log = logs.get(__name__)


RING_MAX_BYTES = 64 << 20
# These are written to streams that are a little behind, and to most that resume.
FRAMED = 4


class StreamSink(Protocol):
    """Where a stream's bytes go."""

    def write(self, data: Wire) -> None:
        """Take an event's bytes without waiting; a sink that has lost its client drops them."""

    def is_full(self) -> bool:
        """Whether the client takes bytes more slowly than it is sent them."""

    def abort(self) -> None:
        """Cut the connection without sending the waiting bytes."""

    def stuck_s(self, now_s: float) -> float:
        """Return how long the client has taken none of the waiting bytes, seconds on the clock of `now_s`."""


class Stream:
    """One client's stream in the fan-out.

    Positions count the windows published here, from 0. `cursor` is the position of the next window to write to this
    stream; `joined` is the fan-out's `head` when the stream joined. `transport` is `sse`, `websocket` or `poll`.
    `ended` is the reason why the stream ended.
    """

    __slots__ = ("_wake", "client_id", "cursor", "ended", "joined", "sink", "transport")

    def __init__(self, client_id: str, sink: StreamSink, transport: str = "sse") -> None:
        self.client_id = client_id
        self.sink = sink
        self.transport = transport
        self.cursor = 0
        self.joined = 0
        self.ended: str | None = None
        self._wake: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let `woken` return."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def woken(self) -> None:
        """Wait for `wake`: the stream has ended or has fallen behind. One task at a time may wait."""
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake


class Fanout:
    """Holds the last `ring_max` windows, of at most `ring_max_bytes` in all, and all streams.

    A window that everybody may fill with all emoji has 240 KB, and its framings for each transport three times as much.
    So the ring holds the JSON alone, and only the newest FRAMED windows framed; an older one is framed when it is
    replayed. The newest window is held whatever its size.

    Up to `queue_max` windows may wait for a stream, besides those that it replays; one more cuts it off. `head` is the
    position of the next window.
    """

    def __init__(self, ring_max: int, queue_max: int, ring_max_bytes: int = RING_MAX_BYTES) -> None:
        # A stream may be queue_max windows behind, and the ring must hold those.
        self._ring: deque[tuple[EventId, bytes]] = deque()
        self._ring_max, self._ring_max_bytes = max(ring_max, queue_max), ring_max_bytes
        self._ring_bytes = 0
        self._framed: deque[Wire] = deque(maxlen=FRAMED)
        self._queue_max = queue_max
        self._streams: dict[str, Stream] = {}
        self._publish_waiters: set[asyncio.Future[None]] = set()
        self.head = 0
        # Whether the first window published here is the feed's first.
        self.has_earliest = True
        # Read by pipeline.subscriber.metrics: streams opened by transport, ended and cut off by reason.
        self.opened: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.sent = 0
        self.resets = 0

    def __len__(self) -> int:
        return len(self._streams)

    def clients(self) -> list[str]:
        """Return the ids of the clients whose streams are open; for any thread."""
        return list(self._streams)

    @property
    def last_event_id(self) -> EventId | None:
        """The newest window's id; None before the first window."""
        return self._ring[-1][0] if self._ring else None

    @property
    def kept(self) -> int:
        """The number of windows that can be replayed."""
        return len(self._ring)

    def transports(self) -> Counter[str]:
        """Return the number of streams of each transport."""
        return Counter(stream.transport for stream in self._streams.values())

    # windows

    def publish(self, window: Window) -> None:
        """Encode `window` once and write it to every stream that is up to date; others find it in the ring."""
        event_id, message = EventId(window.epoch, window.window), encode(window)
        data = _framed(event_id, message)
        self._hold(event_id, message, data)
        position, self.head = self.head, self.head + 1
        lagging = []
        for stream in self._streams.values():
            if stream.cursor == position and not stream.sink.is_full():
                stream.sink.write(data)
                stream.cursor = self.head
            else:
                lagging.append(stream)
        self.sent += len(self._streams) - len(lagging)
        for stream in lagging:
            if not self._cut_if_behind(stream):
                stream.wake()
        for waiter in self._publish_waiters:
            if not waiter.done():
                waiter.set_result(None)

    def catch_up(self, stream: Stream) -> None:
        """Write to `stream` the windows that wait for it, until its sink is full."""
        if stream.ended is not None or self._cut_if_behind(stream):
            return
        newest = self.head - len(self._framed)
        for event_id, message in islice(self._ring, stream.cursor - self._oldest, None):
            if stream.sink.is_full():
                return
            ready = stream.cursor - newest
            stream.sink.write(self._framed[ready] if ready >= 0 else _framed(event_id, message))
            stream.cursor += 1
            self.sent += 1

    def heartbeat(self, data: Wire, slot: int, slots: int) -> None:
        """Write `data` to every `slots`-th stream, starting at `slot`: so heartbeats spread over time.

        A full sink is skipped: bytes wait for its client already.
        """
        for stream in islice(self._streams.values(), slot, None, slots):
            if not stream.sink.is_full():
                stream.sink.write(data)

    def sweep_idle(self, now_s: float, idle_max_s: float) -> None:
        """Cut off every stream whose client has taken none of its waiting bytes for more than `idle_max_s`."""
        for stream in list(self._streams.values()):
            if stream.sink.stuck_s(now_s) > idle_max_s:
                self._cut(stream, "stuck")

    # streams

    def join(self, stream: Stream, position: int) -> None:
        """Add `stream` and write to it all windows from `position` on, at once as far as its sink takes them.

        This ends the client's previous stream: the client uses its newest connection, the other may be half open.
        """
        self.end(stream.client_id, "replaced")
        self._streams[stream.client_id] = stream
        self.opened[stream.transport] += 1
        stream.cursor, stream.joined = position, self.head
        self.catch_up(stream)

    def leave(self, stream: Stream) -> None:
        """Forget `stream`, if it is still its client's newest."""
        if self._streams.get(stream.client_id) is stream:
            del self._streams[stream.client_id]

    def end(self, client_id: str, reason: str) -> None:
        """End a client's stream; abort one whose sink is full, since its end would not arrive."""
        stream = self._streams.pop(client_id, None)
        if stream is None:
            return
        self.ended[reason] += 1
        stream.ended = reason
        if stream.sink.is_full():
            stream.sink.abort()
        stream.wake()

    def end_all(self, reason: str) -> None:
        """End every stream."""
        for client_id in list(self._streams):
            self.end(client_id, reason)

    # resuming

    def position_after(self, last: EventId) -> int | Missed:
        """Return the position of the first window after `last`, the last event that a client received.

        Another subscriber may already have sent a window that is newer than the ring's newest, also one of a new epoch:
        then `final` is False.
        """
        if last == frames.OLDEST:
            return self._oldest
        if last == frames.EARLIEST:
            missed = self._oldest > 0 or not self.has_earliest
            return Missed("the first windows are not kept", final=True) if missed else 0
        same = [(index, kept.window) for index, (kept, _) in enumerate(self._ring) if kept.epoch == last.epoch]
        if not same:
            return Missed(f"epoch {last.epoch} is not kept", final=False)
        if last.window > same[-1][1]:
            return Missed(f"window {last.window} lies beyond the newest, {same[-1][1]}", final=False, ahead=True)
        # An epoch numbers its windows without gaps: after the one before the oldest kept, nothing is missed either.
        if last.window < same[0][1] - 1:
            return Missed(f"window {last.window} is too old: the oldest kept is {same[0][1]}", final=True)
        return self._oldest + next((index for index, window in same if window > last.window), same[-1][0] + 1)

    async def resolve(self, last: EventId, patience_s: float) -> int | Missed:
        """Return `position_after(last)`; wait up to `patience_s` if a coming window may change a Missed."""
        position = self.position_after(last)
        try:
            async with asyncio.timeout(patience_s):
                while isinstance(position, Missed) and not position.final:
                    await self._next_publish()
                    position = self.position_after(last)
        except TimeoutError:
            pass
        return position

    async def _next_publish(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._publish_waiters.add(waiter)
        try:
            await waiter
        finally:
            self._publish_waiters.discard(waiter)

    def _hold(self, event_id: EventId, message: bytes, data: Wire) -> None:
        self._ring.append((event_id, message))
        self._framed.append(data)
        self._ring_bytes += len(message)
        while len(self._ring) > self._ring_max or (self._ring_bytes > self._ring_max_bytes and len(self._ring) > 1):
            self._ring_bytes -= len(self._ring.popleft()[1])
        while len(self._framed) > len(self._ring):
            self._framed.popleft()

    @property
    def _oldest(self) -> int:
        return self.head - len(self._ring)

    def _cut_if_behind(self, stream: Stream) -> bool:
        """Cut off `stream` if it is too far behind; return whether it was."""
        waiting = self.head - max(stream.cursor, stream.joined)
        if waiting <= self._queue_max and stream.cursor >= self._oldest:
            return False
        self._cut(stream, "slow")
        return True

    def _cut(self, stream: Stream, reason: str) -> None:
        waiting = self.head - stream.cursor
        log.warning("cut off a client", client_id=stream.client_id, reason=reason, waiting=waiting)
        self.cut[reason] += 1
        self.leave(stream)
        stream.ended = reason
        stream.sink.abort()
        stream.wake()


def _framed(event_id: EventId, message: bytes) -> Wire:
    return frames.event(str(event_id), "window", message)
