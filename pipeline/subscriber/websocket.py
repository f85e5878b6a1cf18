"""WebSocket (RFC 6455): `GET /clients/{id}/socket`.

The client's first message, `{"after": "<epoch>:<window>"}` or `{}`, says where to go on; it sends no other. Every
message to it is `{"id", "event", "data"}`, with the id, event type and JSON of a server-sent event; where it begins
anew, the first is an event `begin` with the id to resume by until there is a window.
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
FIRST_S = 10.0
CLOSE_S = 2.0
# A close frame's reason, section 5.5: what is left of 125 bytes.
REASON_MAX_BYTES = 123
_ENDS = {"shutdown": WSCloseCode.GOING_AWAY, "moved": WSCloseCode.GOING_AWAY}


class First(msgspec.Struct, forbid_unknown_fields=True):
    """The first message."""

    after: str = ""


class _Close(NamedTuple):
    code: int
    reason: str


_decode_first = msgspec.json.Decoder(First).decode


async def socket(request: web.Request, fanout: Fanout, admission: Admission) -> web.StreamResponse:
    """Send windows over a WebSocket until the client leaves or its stream is ended. Raises Refusal before that."""
    client_id = await admission.authenticate(request)
    ws = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_MAX_BYTES, timeout=CLOSE_S)
    ready = ws.can_prepare(request)
    if not ready.ok:
        raise web.HTTPUpgradeRequired()
    await ws.prepare(request)
    end = await _converse(ws, request, client_id, fanout, admission)
    if end is not None and not ws.closed:
        await ws.close(code=end.code, message=end.reason.encode()[:REASON_MAX_BYTES])
    return ws


async def _converse(
    ws: web.WebSocketResponse, request: web.Request, client_id: str, fanout: Fanout, admission: Admission
) -> _Close | None:
    """Serve one socket; return why it is to be closed, or None when it is closed already."""
    try:
        asked = await _first(ws)
        if asked is None:
            return None
        position, first = await admission.resume(asked.after, "after")
    except (MessageError, Refusal) as error:
        return _Close(WSCloseCode.POLICY_VIOLATION, str(error))
    if not admission.is_registered(client_id):
        return _Close(WSCloseCode.OK, "deleted")
    one = Stream(client_id, StreamConnection(request, connection.FRAME), "websocket")
    if first is not None:
        one.sink.write(first)
    fanout.join(one, position)
    pumping = asyncio.create_task(pump(request, fanout, one))
    reading = asyncio.create_task(_until_more(ws))
    try:
        await asyncio.wait((pumping, reading), return_when=asyncio.FIRST_COMPLETED)
        if one.ended is not None:
            return _Close(_ENDS.get(one.ended, WSCloseCode.OK), one.ended)
        return reading.result()
    finally:
        fanout.leave(one)
        for task in (pumping, reading):
            task.cancel()
        await asyncio.gather(pumping, reading, return_exceptions=True)


async def _first(ws: web.WebSocketResponse) -> First | None:
    """Return the first message; None when there will be none. Raises MessageError for one that is not as it must be."""
    wanted = 'send {"after": "<epoch>:<window>"} or {} as text'
    try:
        message = await ws.receive(timeout=FIRST_S)
    except TimeoutError:
        raise MessageError(f"no first message within {FIRST_S:g} s: {wanted}") from None
    if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
        return None
    if message.type != WSMsgType.TEXT:
        raise MessageError(f"the first message is binary: {wanted}")
    try:
        return _decode_first(message.data)
    except msgspec.MsgspecError as error:
        raise MessageError(f"first message: {error}; {wanted}") from error


async def _until_more(ws: web.WebSocketResponse) -> _Close | None:
    """Wait for the client to close, or to send what it may not."""
    message = await ws.receive()
    if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
        return _Close(WSCloseCode.POLICY_VIOLATION, "a client sends one message, its first")
    return None
