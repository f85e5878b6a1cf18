"""One connection of a client, in three kinds: server-sent events, WebSocket, long polling.

Each is opened with the id it goes on after ("" begins now), and gives what it reads as events of one form. None waits
for anything but its socket, has a task of its own, or knows of reconnecting. A read that is cancelled loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, Protocol

import aiohttp
import msgspec

from pipeline.client.http import CONNECT_S, SILENT_S, refusal, retry_after_s
from pipeline.errors import ClientError, MessageError
from pipeline.messages import Transport
from pipeline.sse import SseEvent, SseParser

# A server that has nothing to say says so after 25 s (pipeline.subscriber.polling); one that does so sooner ends this:
# the client has its place elsewhere by now, or the server is about to stop.
POLL_MIN_S = 20.0
WEBSOCKET_REFUSED = aiohttp.WSCloseCode.POLICY_VIOLATION
UNKNOWN_ID = 409
"""How a server says that it never gave the id it is asked to go on after."""

_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)


class Batch(NamedTuple):
    """What one read brought: the wall clock as soon as the bytes were there, before they were parsed; the events."""

    received_ns: int
    events: list[SseEvent]


class Connection(Protocol):
    """One connection to a subscriber."""

    @property
    def after(self) -> str:
        """The id that a next connection goes on after."""

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the server wants, ms; None where it named none."""

    async def read(self) -> Batch:
        """Wait for bytes and return what they complete, which may be nothing. Raises ClientError at the end."""

    async def close(self) -> None:
        """Let go of the socket."""


class _Message(msgspec.Struct):
    id: str
    event: str
    data: msgspec.Raw


class _Answer(msgspec.Struct):
    events: list[_Message]
    after: str = ""


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def _event(message: _Message, retry_ms: int | None) -> SseEvent:
    return SseEvent(message.id, message.event, bytes(message.data).decode(), retry_ms)


class SseConnection:
    """`GET /clients/{id}/stream`: a response that never ends."""

    def __init__(self, answer: aiohttp.ClientResponse, after: str, retry_ms: int | None) -> None:
        self._answer = answer
        self._content = answer.content
        self._parser = SseParser(after, retry_ms)

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, place: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> SseConnection:
        """Connect. Raises ClientError for an answer that is no stream."""
        headers = {**headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after:
            headers["Last-Event-ID"] = after
        answer = await session.get(place, headers=headers, timeout=_STREAM, allow_redirects=False)
        if answer.status != 200 or answer.content_type != "text/event-stream":
            async with answer:
                raise await refusal(answer, "200 and text/event-stream")
        return cls(answer, after, retry_ms)

    @property
    def after(self) -> str:
        """The last event id."""
        return self._parser.last_event_id

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time."""
        return self._parser.retry_ms

    async def read(self) -> Batch:
        """Return the events that the next bytes complete."""
        chunk = await self._content.readany()
        received_ns = time.time_ns()
        if not chunk:
            raise ClientError(f"{self._answer.url} ended the stream")
        return Batch(received_ns, self._parser.feed(chunk))

    async def close(self) -> None:
        """Close the socket: the rest of the response would never come."""
        self._answer.close()


class SocketConnection:
    """`GET /clients/{id}/socket`: a WebSocket on which the client speaks once, first."""

    def __init__(
        self, ws: aiohttp.ClientWebSocketResponse[Literal[True]], place: str, after: str, retry_ms: int | None
    ) -> None:
        self._ws = ws
        self._place = place
        self._silent = True
        self.after = after
        self.retry_ms = retry_ms

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, place: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> SocketConnection:
        """Connect and say where to go on. Raises ClientError when the handshake is refused."""
        # A read ends with each of the server's pings, too.
        timeout = aiohttp.ClientWSTimeout(ws_receive=SILENT_S, ws_close=1.0)
        try:
            # As over the other transports, a window may be as large as it is.
            ws = await session.ws_connect(place, headers=headers, timeout=timeout, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            # aiohttp has dropped the answer's body: only the status tells why.
            later = error.headers.get("Retry-After") if error.headers else None
            raise ClientError(
                f"{place} answered {error.status} instead of a WebSocket",
                status=error.status,
                retry_after_s=retry_after_s(later, time.time()),
            ) from error
        try:
            await ws.send_str(msgspec.json.encode({"after": after} if after else {}).decode())
        except BaseException:
            await ws.close()
            raise
        return cls(ws, place, after, retry_ms)

    async def read(self) -> Batch:
        """Return the next message as one event."""
        message = await self._ws.receive()
        received_ns = time.time_ns()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise self._ended(str(message.extra or message.data or "no reason given"))
        try:
            event = _event(_decode_message(message.data), self.retry_ms)
        except msgspec.DecodeError as error:
            raise MessageError(f"{self._place} sent what is no event ({error}): {message.data[:80]!r}") from error
        self._silent = False
        self.after = event.id
        return Batch(received_ns, [event])

    def _ended(self, reason: str) -> ClientError:
        code = self._ws.close_code
        # Closed so before any event: it is the first message, and with it the id, that the server does not take.
        unknown = code == WEBSOCKET_REFUSED and self._silent and bool(self.after)
        return ClientError(
            f"{self._place} closed the socket with {code}: {reason}",
            status=UNKNOWN_ID if unknown else None,
            detail=reason,
        )

    async def close(self) -> None:
        """Close the socket."""
        await self._ws.close()


class PollConnection:
    """`GET /clients/{id}/windows?after=…`: one request after the other."""

    def __init__(
        self, session: aiohttp.ClientSession, place: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> None:
        self._session = session
        self._place = place
        self._headers = headers
        self.after = after
        self.retry_ms = retry_ms

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, place: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> PollConnection:
        """Do nothing yet: each read is a request."""
        return cls(session, place, headers, after, retry_ms)

    async def read(self) -> Batch:
        """Ask once; return what has come since `after`. Raises ClientError also when the server refuses."""
        asked_s = time.monotonic()
        query = {"after": self.after} if self.after else {}
        request = self._session.get(
            self._place, params=query, headers=self._headers, timeout=_STREAM, allow_redirects=False
        )
        async with request as answer:
            if answer.status not in (200, 204):
                raise await refusal(answer, "200")
            body = await answer.read()
            received_ns = time.time_ns()
        try:
            said = _decode_answer(body) if body else _Answer([], self.after)
        except msgspec.DecodeError as error:
            raise MessageError(f"{self._place} answered what are no events ({error}): {body[:80]!r}") from error
        if not said.events and said.after == self.after and time.monotonic() - asked_s < POLL_MIN_S:
            raise ClientError(f"{self._place} had nothing and did not wait its time")
        self.after = said.after
        return Batch(received_ns, [_event(message, self.retry_ms) for message in said.events])

    async def close(self) -> None:
        """Nothing is open between two reads."""


Open = Callable[[aiohttp.ClientSession, str, dict[str, str], str, int | None], Awaitable[Connection]]
"""`open(session, place, headers, after, retry_ms) -> Connection`."""

OPEN: dict[Transport, Open] = {
    "sse": SseConnection.open,
    "websocket": SocketConnection.open,
    "poll": PollConnection.open,
}
