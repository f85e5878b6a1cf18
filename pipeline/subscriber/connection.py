"""The sink of one connection: writes a stream's framed bytes to its transport."""

from __future__ import annotations

import asyncio
import socket
import time
from operator import attrgetter

from aiohttp import web

from pipeline import logs
from pipeline.subscriber.fanout import Stream
from pipeline.subscriber.frames import Wire

log = logs.get(__name__)

STUCK_S = 30.0
"""A connection is closed after this many seconds in which its client took none of the bytes that wait for it."""

# What the kernel holds for a client that does not read; its own default is up to 4 MiB per connection.
SEND_BUFFER_BYTES = 65_536

PLAIN, CHUNK, FRAME = attrgetter("plain"), attrgetter("chunk"), attrgetter("frame")


class StreamConnection:
    """The sink of one response: bypasses aiohttp's response object and writes to the transport.

    The bytes are framed already (`form` picks the framing), and no task wakes for them: so a message is cheap.
    """

    __slots__ = ("_form", "_protocol", "_since_s", "_taken", "_transport", "_written")

    def __init__(self, request: web.Request, form: attrgetter[bytes]) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client left before its stream started")
        self._transport: asyncio.Transport = request.transport
        self._protocol = request.protocol
        self._form = form
        self._written = 0
        self._taken = 0
        self._since_s = time.monotonic()
        notice_lost_peers(self._transport)

    def write(self, data: Wire) -> None:
        """Hand bytes to the transport."""
        if not self._transport.is_closing():
            sent = self._form(data)
            self._written += len(sent)
            self._transport.write(sent)

    async def send(self, request: web.Request, response: web.Response) -> None:
        """Send a whole response; return once the system has all of its bytes. Raises ConnectionResetError."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client left before its answer")
        self._transport.set_write_buffer_limits(high=0)
        await response.prepare(request)
        await response.write_eof()
        if not self._transport.is_closing():
            # A stream may follow on the same connection.
            self._transport.set_write_buffer_limits()

    def is_full(self) -> bool:
        """Whether the transport holds more than its high-water mark."""
        return self._protocol.writing_paused

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()

    def stuck_s(self, now_s: float) -> float:
        """Return how long the client has taken none of the waiting bytes, seconds; `now_s` is `time.monotonic()`."""
        waiting = self._transport.get_write_buffer_size()
        taken = self._written - waiting
        if not waiting or taken != self._taken:
            self._taken, self._since_s = taken, now_s
        return now_s - self._since_s


def notice_lost_peers(transport: asyncio.Transport) -> None:
    """Bound the kernel's buffer for a peer, and have it drop a peer that acknowledges nothing for STUCK_S."""
    peer = transport.get_extra_info("socket")
    if peer is None:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STUCK_S * 1000))


class OneWayProtocol(asyncio.Protocol):
    """Wraps a connection's protocol while its stream is open: any byte from the client ends the stream.

    aiohttp would keep all of these bytes for a next request, which is never served.
    """

    def __init__(self, protocol: asyncio.Protocol, stream: Stream) -> None:
        self._protocol = protocol
        self._stream = stream

    def pause_writing(self) -> None:
        """Delegate (asyncio calls this)."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Delegate (asyncio calls this)."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Delegate (asyncio calls this)."""
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Delegate (asyncio calls this)."""
        return self._protocol.eof_received()

    def data_received(self, data: bytes) -> None:
        """End the stream (asyncio calls this)."""
        log.warning(
            "cut off a client that sent bytes on its stream", client_id=self._stream.client_id, received=len(data)
        )
        self._stream.sink.abort()
