"""A client's connection, of three kinds: server-sent events, WebSocket, long polling.

Each opens with the id to resume after ("": start with the next window) and reads events of one form. None has a task,
waits for anything but its socket, or reconnects. Cancelling a read loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, Protocol

import aiohttp
import msgspec
from aiohttp import WSCloseCode

from pipeline.client.http import CONNECT_S, SILENT_S, retry_after_s, unexpected
from pipeline.errors import ClientError, MessageError
from pipeline.messages import Transport
from pipeline.sse import SseEvent, SseParser

# An empty poll answer comes after 25 s (pipeline.subscriber.polling). An earlier one ends the connection: the client
# was assigned to another subscriber, or its own is about to stop.
POLL_MIN_S = 20.0
UNKNOWN_ID = 409
"""The status with which a server refuses to resume after an id that it never gave."""

_STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)


class Batch(NamedTuple):
    """The events of one read, and the wall clock when their bytes arrived, before parsing."""

    received_ns: int
    events: list[SseEvent]


class EventConnection(Protocol):
    """One connection to a subscriber, as a source of events."""

    @property
    def after(self) -> str:
        """The id that the next connection resumes after."""

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the server set, ms; None if it set none."""

    async def read(self) -> Batch:
        """Wait for bytes and return the events they complete, perhaps none. Raises ClientError at the end."""

    async def close(self) -> None:
        """Close the socket."""


class _EventMessage(msgspec.Struct):
    id: str
    event: str
    data: msgspec.Raw


class _PollAnswer(msgspec.Struct):
    events: list[_EventMessage]
    after: str = ""


_decode_message = msgspec.json.Decoder(_EventMessage).decode
_decode_poll_answer = msgspec.json.Decoder(_PollAnswer).decode


def _status_of(close_code: int | None, reason: str) -> int | None:
    """Return the HTTP status with the meaning of a WebSocket's end; None if the client is to come back.

    A second program with the same token replaces the first one's socket. If the first came back, neither would stay.
    """
    if close_code == WSCloseCode.OK:
        return 204 if reason == "deleted" else 403
    return 403 if close_code == WSCloseCode.POLICY_VIOLATION else None


def _event(message: _EventMessage, retry_ms: int | None) -> SseEvent:
    return SseEvent(message.id, message.event, bytes(message.data).decode(), retry_ms)


class SseConnection:
    """`GET /clients/{id}/stream`: a response without an end."""

    def __init__(self, answer: aiohttp.ClientResponse, after: str, retry_ms: int | None) -> None:
        self._answer = answer
        self._content = answer.content
        self._parser = SseParser(after, retry_ms)

    @classmethod
    async def open(
        cls, http: aiohttp.ClientSession, url: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> SseConnection:
        """Connect. Raises ClientError for an answer that is not an event stream."""
        headers = {**headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after:
            headers["Last-Event-ID"] = after
        answer = await http.get(url, headers=headers, timeout=_STREAM_TIMEOUT, allow_redirects=False)
        if answer.status != 200 or answer.content_type != "text/event-stream":
            async with answer:
                raise await unexpected(answer, "200 and text/event-stream")
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


class WebSocketConnection:
    """`GET /clients/{id}/socket?after=…`: a WebSocket on which the client sends nothing."""

    def __init__(
        self, ws: aiohttp.ClientWebSocketResponse[Literal[True]], url: str, after: str, retry_ms: int | None
    ) -> None:
        self._ws = ws
        self._url = url
        self.after = after
        self.retry_ms = retry_ms

    @classmethod
    async def open(
        cls, http: aiohttp.ClientSession, url: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> WebSocketConnection:
        """Connect. Raises ClientError if the handshake is refused."""
        # The server's pings also restart the timeout of a read.
        timeout = aiohttp.ClientWSTimeout(ws_receive=SILENT_S, ws_close=1.0)
        try:
            # No size limit: the other transports have none either.
            query = {"after": after} if after else {}
            ws = await http.ws_connect(url, params=query, headers=headers, timeout=timeout, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            # aiohttp has dropped the answer's body: only the status is left.
            retry_after = error.headers.get("Retry-After") if error.headers else None
            raise ClientError(
                f"status {error.status} instead of a WebSocket ({url})",
                status=error.status,
                retry_after_s=retry_after_s(retry_after, time.time()),
            ) from error
        return cls(ws, url, after, retry_ms)

    async def read(self) -> Batch:
        """Return the next message as one event."""
        message = await self._ws.receive()
        received_ns = time.time_ns()
        if message.type is not aiohttp.WSMsgType.TEXT:
            reason = str(message.extra or message.data or "no reason given")
            raise ClientError(
                f"{self._url} closed the socket with {self._ws.close_code}: {reason}",
                status=_status_of(self._ws.close_code, reason),
                detail=reason,
            )
        try:
            event = _event(_decode_message(message.data), self.retry_ms)
        except msgspec.DecodeError as error:
            raise MessageError(f"{self._url} sent an unreadable event ({error}): {message.data[:80]!r}") from error
        self.after = event.id
        return Batch(received_ns, [event])

    async def close(self) -> None:
        """Close the socket."""
        await self._ws.close()


class PollConnection:
    """`GET /clients/{id}/windows?after=…`: one request after another."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> None:
        self._http = http
        self._url = url
        self._headers = headers
        self.after = after
        self.retry_ms = retry_ms

    @classmethod
    async def open(
        cls, http: aiohttp.ClientSession, url: str, headers: dict[str, str], after: str, retry_ms: int | None
    ) -> PollConnection:
        """Return the connection without a request: each read is one."""
        return cls(http, url, headers, after, retry_ms)

    async def read(self) -> Batch:
        """Send one request; return the events since `after`. Also raises ClientError if the server refuses."""
        started_s = time.monotonic()
        query = {"after": self.after} if self.after else {}
        request = self._http.get(
            self._url, params=query, headers=self._headers, timeout=_STREAM_TIMEOUT, allow_redirects=False
        )
        async with request as answer:
            if answer.status not in (200, 204):
                raise await unexpected(answer, "200")
            body = await answer.read()
            received_ns = time.time_ns()
        try:
            polled = _decode_poll_answer(body) if body else _PollAnswer([], self.after)
        except msgspec.DecodeError as error:
            raise MessageError(f"{self._url} sent unreadable events ({error}): {body[:80]!r}") from error
        if not polled.events and polled.after == self.after and time.monotonic() - started_s < POLL_MIN_S:
            raise ClientError(f"{self._url} sent no event and answered sooner than after {POLL_MIN_S:g} s")
        self.after = polled.after
        return Batch(received_ns, [_event(message, self.retry_ms) for message in polled.events])

    async def close(self) -> None:
        """Do nothing: no socket is open between two reads."""


Connect = Callable[[aiohttp.ClientSession, str, dict[str, str], str, int | None], Awaitable[EventConnection]]
"""`connect(http, url, headers, after, retry_ms) -> EventConnection`."""

CONNECT: dict[Transport, Connect] = {
    "sse": SseConnection.open,
    "websocket": WebSocketConnection.open,
    "poll": PollConnection.open,
}
