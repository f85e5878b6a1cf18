"""The subscriber's HTTP side: three transports over one fan-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import hdrs, web

from pipeline.subscriber import frames
from pipeline.subscriber.admission import Admission, Refusal, cors, refuse
from pipeline.subscriber.connection import STUCK_S
from pipeline.subscriber.event_stream import stream
from pipeline.subscriber.fanout import Fanout
from pipeline.subscriber.polling import poll
from pipeline.subscriber.process import trim_heap
from pipeline.subscriber.websocket import socket
from pipeline.tokens import Tokens

PATIENCE_S = 2.0
BEAT_SLOTS = 16
LOOK_S = 5.0
# What fewer have taken is not worth a pause.
CROWD = 100

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Transport = Callable[[web.Request, Fanout, Admission], Awaitable[web.StreamResponse]]


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn aiohttp's own refusals (no such path, wrong method) into problem documents."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kept = {name: error.headers[name] for name in (hdrs.ALLOW, hdrs.UPGRADE) if name in error.headers}
        return refuse(
            error.status,
            error.reason,
            f"{request.method} {request.path[:200]!a} is nothing this stage serves so: use GET "
            "/clients/{id}/stream, /clients/{id}/socket (WebSocket), /clients/{id}/windows or /healthz",
            **{name.replace("-", "_"): value for name, value in kept.items()},
        )


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
    admission = Admission(fanout, tokens, connections_max, patience_s)

    def over(transport: Transport) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            try:
                with admission.place():
                    return await transport(request, fanout, admission)
            except Refusal as refusal:
                refusal.response.headers.update(cors(request))
                return refusal.response
            except ConnectionResetError:
                # The client left before its stream began, and gets no answer.
                return web.Response(status=503)

        return serve

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
        slot, data = 0, frames.beat()
        while True:
            await asyncio.sleep(heartbeat_s / BEAT_SLOTS)
            fanout.beat(data, slot, BEAT_SLOTS)
            slot = (slot + 1) % BEAT_SLOTS

    async def look() -> None:
        most = before = 0
        while True:
            await asyncio.sleep(LOOK_S)
            fanout.cut_stuck(time.monotonic(), STUCK_S)
            here = len(fanout)
            most = max(most, here)
            # By two looks: those who poll are all away for a moment, after each window.
            if most >= CROWD and 2 * max(here, before) < most:
                most = here
                trim_heap()
            before = here

    async def keeping(_app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(beat()), asyncio.create_task(look())]
        yield
        for task in tasks:
            task.cancel()

    async def end(_app: web.Application) -> None:
        fanout.end_all("shutdown")

    app = web.Application(middlewares=[explain])
    for path, transport in (("stream", stream), ("socket", socket), ("windows", poll)):
        app.router.add_get(f"/clients/{{client_id}}/{path}", over(transport), allow_head=False)
        app.router.add_options(f"/clients/{{client_id}}/{path}", preflight)
    app.router.add_get("/healthz", healthz)
    app.cleanup_ctx.append(keeping)
    app.on_shutdown.append(end)
    return app
