"""Server-sent events: `GET /clients/{id}/stream`."""

from __future__ import annotations

from aiohttp import web

from pipeline.sse import LAST_EVENT_ID, MEDIA_TYPE, comment, retry
from pipeline.subscriber import connection
from pipeline.subscriber.admission import Admission
from pipeline.subscriber.connection import OneWayProtocol, StreamConnection
from pipeline.subscriber.fanout import Fanout, Stream

RETRY_MS = 1000
RETRY = retry(RETRY_MS)
CONNECTED = comment("connected")


async def serve_event_stream(request: web.Request, fanout: Fanout, admission: Admission) -> web.StreamResponse:
    """Stream windows as server-sent events until the client leaves or its stream ends. Raises Refusal."""
    client_id = await admission.authenticate(request)
    # An EventSource sends the header once it has received an id; its page can only set the query.
    last = request.headers.get(LAST_EVENT_ID)
    position, first = await (
        admission.resume(last, LAST_EVENT_ID) if last else admission.resume(request.query.get("after", ""), "after")
    )
    response = web.StreamResponse(
        headers={
            "Content-Type": MEDIA_TYPE,
            "Cache-Control": "no-store",
            # A buffering proxy would hold every event back.
            "X-Accel-Buffering": "no",
        }
    )
    response.force_close()
    await response.prepare(request)
    # At once: it carries the headers, which a client waits for.
    await response.write(RETRY + (b"" if first is None else first.plain) + CONNECTED)
    chunked = request.version >= (1, 1)
    stream = Stream(client_id, StreamConnection(request, connection.CHUNK if chunked else connection.PLAIN))
    if not admission.is_registered(client_id):
        return response
    transport = request.transport
    if transport is not None:
        transport.set_protocol(OneWayProtocol(request.protocol, stream))
    fanout.join(stream, position)
    try:
        await pump(request, fanout, stream)
    finally:
        fanout.leave(stream)
    return response


async def pump(request: web.Request, fanout: Fanout, stream: Stream) -> None:
    """Write to a stream that has fallen behind, as fast as its client reads, until the stream ends."""
    while stream.ended is None:
        if stream.cursor < fanout.head:
            await request.writer.drain()
            fanout.catch_up(stream)
        else:
            await stream.woken()
