"""WebSocket (RFC 6455): `GET /clients/{id}/socket`.

The client sends one message, its first: `{"after": "<id>"}` resumes after that event, `{}` starts with the next window.
Every message to it is `{"id", "event", "data"}`, as in a server-sent event. After `{}`, the first is an event `begin`:
its id is the one to resume from until a window arrives.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from pipeline.errors import MessageError
from pipeline.problems import Refusal
from pipeline.subscriber import connection
from pipeline.subscriber.admission import Admission
from pipeline.subscriber.connection import StreamConnection
from pipeline.subscriber.event_stream import pump
from pipeline.subscriber.fanout import Fanout, Stream

MESSAGE_MAX_BYTES = 4096
FIRST_MESSAGE_S = 10.0
CLOSE_S = 2.0
# A close frame holds 125 bytes (section 5.5), two of them the code.
REASON_MAX_BYTES = 123
_CLOSE_CODES = {"shutdown": WSCloseCode.GOING_AWAY, "moved": WSCloseCode.GOING_AWAY}


class FirstMessage(msgspec.Struct, forbid_unknown_fields=True):
    """The client's first message."""

    after: str = ""


class _Close(NamedTuple):
    code: int
    reason: str


_decode_first_message = msgspec.json.Decoder(FirstMessage).decode


async def serve_websocket(request: web.Request, fanout: Fanout, admission: Admission) -> web.StreamResponse:
    """Send windows over a WebSocket until the client leaves or its stream ends. Raises Refusal before the upgrade."""
    client_id = await admission.authenticate(request)
    ws = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_MAX_BYTES, timeout=CLOSE_S)
    if not ws.can_prepare(request).ok:
        raise web.HTTPUpgradeRequired()
    await ws.prepare(request)
    close = await _stream_windows(ws, request, client_id, fanout, admission)
    if close is not None and not ws.closed:
        await ws.close(code=close.code, message=close.reason.encode()[:REASON_MAX_BYTES])
    return ws


async def _stream_windows(
    ws: web.WebSocketResponse, request: web.Request, client_id: str, fanout: Fanout, admission: Admission
) -> _Close | None:
    """Serve one socket; return how to close it, or None when it is closed already."""
    try:
        message = await _receive_first(ws)
        if message is None:
            return None
        position, first = await admission.resume(message.after, "after")
    except (MessageError, Refusal) as error:
        return _Close(WSCloseCode.POLICY_VIOLATION, str(error))
    if not admission.is_registered(client_id):
        return _Close(WSCloseCode.OK, "deleted")
    stream = Stream(client_id, StreamConnection(request, connection.FRAME), "websocket")
    if first is not None:
        stream.sink.write(first)
    fanout.join(stream, position)
    writing = asyncio.create_task(pump(request, fanout, stream))
    reading = asyncio.create_task(_receive_no_more(ws))
    try:
        await asyncio.wait((writing, reading), return_when=asyncio.FIRST_COMPLETED)
        if stream.ended is not None:
            return _Close(_CLOSE_CODES.get(stream.ended, WSCloseCode.OK), stream.ended)
        return reading.result()
    finally:
        fanout.leave(stream)
        for task in (writing, reading):
            task.cancel()
        await asyncio.gather(writing, reading, return_exceptions=True)


async def _receive_first(ws: web.WebSocketResponse) -> FirstMessage | None:
    """Return the first message; None if the client closes instead. Raises MessageError for a malformed one."""
    expected = 'send {"after": "<epoch>:<window>"} or {} as text'
    try:
        message = await ws.receive(timeout=FIRST_MESSAGE_S)
    except TimeoutError:
        raise MessageError(f"no first message within {FIRST_MESSAGE_S:g} s: {expected}") from None
    if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
        return None
    if message.type != WSMsgType.TEXT:
        raise MessageError(f"the first message is binary: {expected}")
    try:
        return _decode_first_message(message.data)
    except msgspec.MsgspecError as error:
        raise MessageError(f"first message: {error}; {expected}") from error


async def _receive_no_more(ws: web.WebSocketResponse) -> _Close | None:
    """Wait until the client closes, or sends a second message, which is not allowed."""
    message = await ws.receive()
    if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
        return _Close(WSCloseCode.POLICY_VIOLATION, "a client sends one message, its first: open another socket")
    return None
