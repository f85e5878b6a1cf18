"""WebSocket (RFC 6455): `GET /clients/{id}/socket?after=<id>`.

The client sends nothing. Every message to it is `{"id", "event", "data"}`, as in a server-sent event. Without `after`,
the first is an event `begin`: its id is the one to resume from until a window arrives.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from pipeline.problems import Refusal
from pipeline.subscriber import connection
from pipeline.subscriber.admission import Admission
from pipeline.subscriber.connection import StreamConnection
from pipeline.subscriber.event_stream import pump
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.frames import Wire

MESSAGE_MAX_BYTES = 4096
CLOSE_S = 2.0
# A close frame holds 125 bytes (section 5.5), two of them the code.
REASON_MAX_BYTES = 123
_CLOSE_CODES = {"shutdown": WSCloseCode.GOING_AWAY, "moved": WSCloseCode.GOING_AWAY}


class _Close(NamedTuple):
    code: int
    reason: str


async def serve_websocket(request: web.Request, fanout: Fanout, admission: Admission) -> web.StreamResponse:
    """Send windows over a WebSocket until the client leaves or its stream ends. Raises Refusal before the upgrade."""
    ws = _response()
    if not ws.can_prepare(request).ok:
        raise Refusal(
            426,
            "WebSocket only",
            f"{request.method} {request.path[:200]!a} takes the handshake of a WebSocket only: open it with a "
            "WebSocket client",
            headers={hdrs.UPGRADE: "websocket"},
        )
    client_id = await admission.authenticate(request)
    position, first = await admission.resume(request.query.get("after", ""), "after")
    await ws.prepare(request)
    if not admission.is_registered(client_id):
        return await _closed(ws, _Close(WSCloseCode.OK, "deleted"))
    stream = Stream(client_id, StreamConnection(request, connection.FRAME), "websocket")
    return await _closed(ws, await _stream_windows(ws, request, fanout, stream, position, first))


async def refuse_browser(request: web.Request, refusal: Refusal) -> web.StreamResponse:
    """Close a browser's WebSocket with the reason of a refusal. Raises the refusal for any other client.

    A browser hides the answer to a handshake from its page, but not the code and reason of a close.
    """
    ws = _response()
    if hdrs.ORIGIN not in request.headers or not ws.can_prepare(request).ok:
        raise refusal
    await ws.prepare(request)
    code = WSCloseCode.TRY_AGAIN_LATER if refusal.status == 503 else WSCloseCode.POLICY_VIOLATION
    return await _closed(ws, _Close(code, refusal.detail))


def _response() -> web.WebSocketResponse:
    return web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_MAX_BYTES, timeout=CLOSE_S)


async def _closed(ws: web.WebSocketResponse, close: _Close | None) -> web.WebSocketResponse:
    """Close the socket, unless it is closed already, and return it."""
    if close is not None and not ws.closed:
        await ws.close(code=close.code, message=close.reason.encode()[:REASON_MAX_BYTES])
    return ws


async def _stream_windows(
    ws: web.WebSocketResponse,
    request: web.Request,
    fanout: Fanout,
    stream: Stream,
    position: int,
    first: Wire | None,
) -> _Close | None:
    """Serve one socket; return how to close it, or None when it is closed already."""
    if first is not None:
        stream.sink.write(first)
    fanout.join(stream, position)
    writing = asyncio.create_task(pump(request, fanout, stream))
    reading = asyncio.create_task(_receive_none(ws))
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


async def _receive_none(ws: web.WebSocketResponse) -> _Close | None:
    """Wait until the client closes, or sends a message, which is not allowed."""
    message = await ws.receive()
    if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
        reason = "a client sends no message: to resume, open another socket with the last id in the query, ?after=<id>"
        return _Close(WSCloseCode.POLICY_VIOLATION, reason)
    return None
