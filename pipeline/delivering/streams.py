"""The subscriber's HTTP side: who may open a stream, and how the fan-out's bytes reach a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import hdrs, web
from yarl import URL

from pipeline.delivering.fanout import Fanout, Stream
from pipeline.delivering.frames import Missed, Wire, parse_event_id, reset_event, wire
from pipeline.delivering.sse import comment, retry
from pipeline.delivering.tokens import COOKIE, Tokens, bearer, matches
from pipeline.errors import MessageError
from pipeline.problems import problem

RETRY_MS = 1000
# A client may be here before its registration's record, or know a window that this subscriber is about to
# read.
PATIENCE_S = 2.0
BEAT_SLOTS = 16
GREETING = wire(retry(RETRY_MS) + comment("connected"))
BEAT = wire(comment("beat"))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connection:
    """The sink of one HTTP response: writes past aiohttp's response object, straight to the transport.

    The window is framed already, and no task has to wake for it: that is what one message costs a client.
    """

    __slots__ = ("_chunked", "_protocol", "_transport")

    def __init__(self, request: web.Request) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client left before its stream began")
        self._transport: asyncio.Transport = request.transport
        self._protocol = request.protocol
        self._chunked = request.version >= (1, 1)

    def write(self, data: Wire) -> None:
        """Hand bytes to the transport."""
        if not self._transport.is_closing():
            self._transport.write(data.chunk if self._chunked else data.plain)

    def is_full(self) -> bool:
        """Whether the transport holds more than its high-water mark."""
        return self._protocol.writing_paused

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()


def refuse(status: int, title: str, detail: str, **headers: str) -> web.Response:
    """Return a problem document; `headers` name their words with underscores."""
    body, kind = problem(status, title, detail)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, body=body, content_type=kind, headers=named)


def token_of(request: web.Request) -> str | None:
    """The token a request carries: a Bearer header, else the client's cookie; never anything in the URL."""
    authorization = request.headers.get(hdrs.AUTHORIZATION)
    return bearer(authorization) if authorization else request.cookies.get(COOKIE) or None


def cors(request: web.Request) -> dict[str, str]:
    """Headers that let the page in, which the registry serves from another port of the same host."""
    origin = request.headers.get(hdrs.ORIGIN, "")
    try:
        same = bool(origin) and URL(origin).host == URL(f"http://{request.host}").host
    except ValueError:
        same = False
    allowed = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
    return {"Vary": "Origin", **(allowed if same else {})}


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn aiohttp's own refusals (no such path, wrong method) into problem documents."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = error.headers.get(hdrs.ALLOW)
        return refuse(
            error.status,
            error.reason,
            f"{request.method} {request.path[:200]!a} is nothing this stage serves: "
            "use GET /clients/{id}/stream or GET /healthz",
            **({"Allow": allow} if allow else {}),
        )


class Streams:
    """Serves `GET /clients/{id}/stream` from one fan-out."""

    def __init__(self, fanout: Fanout, tokens: Tokens, connections_max: int, patience_s: float) -> None:
        self._fanout = fanout
        self._tokens = tokens
        self._connections_max = connections_max
        self._patience_s = patience_s
        self._open = 0

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Stream windows as server-sent events until the client leaves or its stream is ended."""
        if self._open >= self._connections_max:
            response: web.StreamResponse = refuse(
                503,
                "Too many streams",
                f"connections_max={self._connections_max} streams are open here: come back later, by the stream_url",
                Retry_After="5",
            )
        else:
            self._open += 1
            try:
                response = await self._admit(request) or await self._serve(request)
            finally:
                self._open -= 1
        if not response.prepared:
            response.headers.update(cors(request))
        return response

    async def _admit(self, request: web.Request) -> web.Response | None:
        """Return why the request is refused, or None."""
        client_id = request.match_info["client_id"]
        token = token_of(request)
        if token is None:
            return refuse(
                401,
                "Token missing",
                "send the token of POST /clients as 'Authorization: Bearer <token>'",
                WWW_Authenticate="Bearer",
            )
        digest = await self._tokens.find(client_id, self._patience_s)
        if digest is None:
            return refuse(
                404,
                "No such client",
                f"client {client_id[:80]!a} is not registered: POST /clients first",
            )
        if not matches(digest, token):
            return refuse(403, "Wrong token", f"the token is not that of client {client_id[:80]!a}: send its own")
        try:
            parse_event_id(request.headers.get("Last-Event-ID") or "none:0")
        except MessageError as error:
            return refuse(400, "Malformed Last-Event-ID", str(error))
        return None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                # Proxies that buffer would hold every event back.
                "X-Accel-Buffering": "no",
                **cors(request),
            }
        )
        response.force_close()
        await response.prepare(request)
        # The greeting goes at once: it carries the headers, which a client waits for.
        await response.write(GREETING.plain)
        stream = Stream(request.match_info["client_id"], Connection(request))
        position = await self._resume(request, stream)
        if stream.client_id not in self._tokens:
            return response
        self._fanout.join(stream, position)
        try:
            await self._pump(stream, request)
        finally:
            self._fanout.leave(stream)
        return response

    async def _resume(self, request: web.Request, stream: Stream) -> int:
        """Return the position a stream begins at, having told the client of a gap if there is one."""
        last = request.headers.get("Last-Event-ID")
        if not last:
            return self._fanout.head
        event_id = parse_event_id(last)
        found = await self._fanout.settle(event_id, self._patience_s)
        if isinstance(found, Missed):
            self._fanout.resets += 1
            stream.sink.write(reset_event(event_id, found.reason, self._fanout.last_event_id))
            return self._fanout.head
        return found

    async def _pump(self, stream: Stream, request: web.Request) -> None:
        """Give a stream that has fallen behind what waits for it, as fast as its client takes it."""
        while stream.ended is None:
            if stream.cursor < self._fanout.head:
                await request.writer.drain()
                self._fanout.catch_up(stream)
            else:
                await stream.disturbed()


def create_app(
    fanout: Fanout,
    tokens: Tokens,
    health: Callable[[], dict[str, object]],
    *,
    connections_max: int,
    heartbeat_s: float,
    patience_s: float = PATIENCE_S,
) -> web.Application:
    """Return the application; serve it with `handler_cancellation=True`, so that leaving clients are noticed.

    `health()` is what `GET /healthz` answers.
    """
    streams = Streams(fanout, tokens, connections_max, patience_s)

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response(health())

    async def preflight(request: web.Request) -> web.Response:
        asked = {
            "Access-Control-Allow-Methods": "GET",
            "Access-Control-Allow-Headers": "Authorization, Last-Event-ID",
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers={**cors(request), **asked})

    async def beat() -> None:
        slot = 0
        while True:
            await asyncio.sleep(heartbeat_s / BEAT_SLOTS)
            fanout.beat(BEAT, slot, BEAT_SLOTS)
            slot = (slot + 1) % BEAT_SLOTS

    async def beating(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(beat())
        yield
        task.cancel()

    async def end(_app: web.Application) -> None:
        fanout.end_all("shutdown")

    app = web.Application(middlewares=[explain])
    app.router.add_get("/clients/{client_id}/stream", streams.stream, allow_head=False)
    app.router.add_options("/clients/{client_id}/stream", preflight)
    app.router.add_get("/healthz", healthz)
    app.cleanup_ctx.append(beating)
    app.on_shutdown.append(end)
    return app
