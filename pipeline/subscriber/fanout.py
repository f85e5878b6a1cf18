"""The fan-out core: every window encoded once, held in one ring, written to every stream.

A stream owns no queue. Its place in the shared ring is its queue: what lies between its cursor and the ring's
end waits for it. So a waiting window costs no memory a client, replaying is starting further back, and a
client that is too far behind is cut off and can resume. The core knows streams only by their `StreamSink`; all of
it runs in one event loop and none of it awaits.
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


class StreamSink(Protocol):
    """Where a stream's bytes go."""

    def write(self, data: Wire) -> None:
        """Take an event's bytes without waiting; a sink that has lost its client drops them."""

    def is_full(self) -> bool:
        """Whether the client takes bytes more slowly than it gets them."""

    def abort(self) -> None:
        """Cut the connection without sending what waits."""

    def stuck_s(self, now_s: float) -> float:
        """How long bytes have waited of which the client took none, seconds on the clock of `now_s`."""


class Stream:
    """One client's place in the fan-out.

    `cursor` is the position of the next window it is given, counted from the first ever published;
    `joined` is what that of the next one to be published was when it came. `transport` is `sse`, `websocket` or `poll`.
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
        """Let `disturbed` return."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def disturbed(self) -> None:
        """Wait until the stream has ended or has fallen behind. One task at a time may wait."""
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake


class Fanout:
    """Holds the last `ring_max` windows and all streams.

    `queue_max` windows may wait for a stream on top of those it asked to have replayed; one more cuts it off.
    """

    def __init__(self, ring_max: int, queue_max: int) -> None:
        # A stream may be queue_max behind, and what it waits for has to be there.
        self._ring: deque[tuple[EventId, Wire]] = deque(maxlen=max(ring_max, queue_max))
        self._queue_max = queue_max
        self._streams: dict[str, Stream] = {}
        self._grown: set[asyncio.Future[None]] = set()
        self.head = 0
        # Whether the first window published here is the first that there ever was.
        self.whole = True
        # Plain numbers, for who asks (pipeline.subscriber.metrics): streams begun by transport, over by reason.
        self.opened: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.sent = 0
        self.resets = 0

    def __len__(self) -> int:
        return len(self._streams)

    def clients(self) -> list[str]:
        """Whose streams are held; for any thread."""
        return list(self._streams)

    @property
    def last_event_id(self) -> EventId | None:
        """The newest window's id."""
        return self._ring[-1][0] if self._ring else None

    @property
    def kept(self) -> int:
        """How many windows can be replayed."""
        return len(self._ring)

    def transports(self) -> Counter[str]:
        """How many streams each transport carries."""
        return Counter(stream.transport for stream in self._streams.values())

    # windows

    def publish(self, window: Window) -> None:
        """Encode `window` once; give it to every stream that is up to date; others find it in the ring."""
        event_id = EventId(window.epoch, window.window)
        data = frames.event(str(event_id), "window", encode(window))
        self._ring.append((event_id, data))
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
            if not self._cut_off(stream):
                stream.wake()
        for waiter in self._grown:
            if not waiter.done():
                waiter.set_result(None)

    def catch_up(self, stream: Stream) -> None:
        """Give `stream` what waits for it, until its sink is full."""
        if stream.ended is not None or self._cut_off(stream):
            return
        for _, data in islice(self._ring, stream.cursor - self._oldest, None):
            if stream.sink.is_full():
                return
            stream.sink.write(data)
            stream.cursor += 1
            self.sent += 1

    def heartbeat(self, data: Wire, slot: int, slots: int) -> None:
        """Write `data` to every `slots`-th stream, beginning at `slot`: a heartbeat spread over time.

        A full sink is passed over: its client has bytes to take as it is.
        """
        for stream in islice(self._streams.values(), slot, None, slots):
            if not stream.sink.is_full():
                stream.sink.write(data)

    def sweep_idle(self, now_s: float, idle_max_s: float) -> None:
        """Cut off every stream whose client has taken none of the bytes that wait for it for `idle_max_s`."""
        for stream in list(self._streams.values()):
            if stream.sink.stuck_s(now_s) > idle_max_s:
                self._cut(stream, "stuck")

    # streams

    def join(self, stream: Stream, position: int) -> None:
        """Add `stream`, to be given everything from `position` on, at once as far as its sink takes it.

        A stream its client already had is ended: the newest connection is the one the client is at, the other
        may be half open.
        """
        self.end(stream.client_id, "replaced")
        self._streams[stream.client_id] = stream
        self.opened[stream.transport] += 1
        stream.cursor, stream.joined = position, self.head
        self.catch_up(stream)

    def leave(self, stream: Stream) -> None:
        """Forget `stream`, if it is still its client's."""
        if self._streams.get(stream.client_id) is stream:
            del self._streams[stream.client_id]

    def end(self, client_id: str, reason: str) -> None:
        """End a client's stream; one that takes no bytes is aborted: it would not take the end either."""
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

    def after(self, last: EventId) -> int | Missed:
        """Return the position of the first window that a client which has `last` has not got.

        A newer window or epoch than the ring's may be one that another subscriber read sooner: `settled` is
        False.
        """
        if last == frames.BEFORE_ALL:
            return Missed("the first windows are not kept", settled=True) if self._oldest or not self.whole else 0
        same = [(place, seen.window) for place, (seen, _) in enumerate(self._ring) if seen.epoch == last.epoch]
        if not same:
            return Missed(f"epoch {last.epoch} is not kept here", settled=False)
        if last.window > same[-1][1]:
            return Missed(f"window {last.window} lies beyond the newest, {same[-1][1]}", settled=False)
        # Windows of one epoch are numbered without gaps: the one before the oldest kept loses nothing either.
        if last.window < same[0][1] - 1:
            return Missed(f"window {last.window} is too old: the oldest kept is {same[0][1]}", settled=True)
        return self._oldest + next((place for place, window in same if window > last.window), same[-1][0] + 1)

    async def settle(self, last: EventId, patience_s: float) -> int | Missed:
        """Return `after(last)`, waiting up to `patience_s` while a window to come may still tell."""
        found = self.after(last)
        try:
            async with asyncio.timeout(patience_s):
                while isinstance(found, Missed) and not found.settled:
                    await self._growth()
                    found = self.after(last)
        except TimeoutError:
            pass
        return found

    async def _growth(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._grown.add(waiter)
        try:
            await waiter
        finally:
            self._grown.discard(waiter)

    @property
    def _oldest(self) -> int:
        return self.head - len(self._ring)

    def _cut_off(self, stream: Stream) -> bool:
        """Cut `stream` if it is too far behind; say whether it was."""
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
