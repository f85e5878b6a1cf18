"""The subscriber's HTTP application: three transports over one fan-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import hdrs, web

from pipeline.openapi import delivery as openapi
from pipeline.openapi.page import Served
from pipeline.openapi.parts import DOCS_PATH, HTML, OPENAPI_PATH
from pipeline.origins import PREFLIGHT, Origins
from pipeline.problems import BLANK, CONTENT_TYPE, Refusal
from pipeline.subscriber import frames
from pipeline.subscriber.admission import ORIGINS, Admission, check_origin, cors_headers
from pipeline.subscriber.connection import STUCK_S
from pipeline.subscriber.event_stream import serve_event_stream
from pipeline.subscriber.fanout import Fanout
from pipeline.subscriber.polling import serve_poll
from pipeline.subscriber.process import trim_heap
from pipeline.subscriber.websocket import refuse_browser, serve_websocket
from pipeline.tickets import TicketGate
from pipeline.tokens import Tokens

PATIENCE_S = 2.0
HEARTBEAT_SLOTS = 16
SWEEP_S = 5.0
# The memory of fewer streams is not worth a pause.
TRIM_STREAMS_MIN = 100

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Transport = Callable[[web.Request, Fanout, Admission], Awaitable[web.StreamResponse]]


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every refusal, aiohttp's own included, with a problem document that the page may read."""
    try:
        if check_origin(request) and request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers=PREFLIGHT)
        return await handler(request)
    except Refusal as error:
        refusal = error
    except web.HTTPException as error:
        if error.status < 400:
            raise
        refusal = _not_served(request, error)
    headers = dict(refusal.headers)
    if refusal.status >= 400:
        headers[hdrs.CONTENT_TYPE] = CONTENT_TYPE
    return web.Response(status=refusal.status, body=refusal.body(), headers=headers)


def _not_served(request: web.Request, error: web.HTTPException) -> Refusal:
    """Return aiohttp's refusal (unknown path, wrong method) as a Refusal."""
    served = (
        "is not served here: use GET /clients/{id}/stream, /clients/{id}/socket (WebSocket), /clients/{id}/windows, "
        "/healthz or /docs; clients register at the registry"
    )
    return Refusal(
        error.status,
        error.reason,
        f"{request.method} {request.path[:200]!a} {served}",
        headers={hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {},
        problem_type=BLANK,
    )


def create_app(
    fanout: Fanout,
    tokens: Tokens,
    gate: TicketGate,
    health: Callable[[], dict[str, object]],
    *,
    origins: Origins,
    connections_max: int,
    heartbeat_s: float,
    patience_s: float = PATIENCE_S,
) -> web.Application:
    """Return the application; serve it with `handler_cancellation=True`, so that it notices clients that leave.

    `GET /healthz` answers with `health()`.
    """
    admission = Admission(fanout, tokens, gate, connections_max, patience_s)

    def handler_of(transport: Transport) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            try:
                with admission.slot():
                    return await transport(request, fanout, admission)
            except ConnectionResetError:
                # The client left before its stream started, and gets no answer.
                return web.Response(status=503)
            except Refusal as refusal:
                if transport is not serve_websocket:
                    raise
                return await refuse_browser(request, refusal)

        return serve

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response(health(), headers={hdrs.CACHE_CONTROL: "no-store"})

    documents = Served(openapi.document)

    async def openapi_json(_request: web.Request) -> web.Response:
        return web.Response(
            body=documents.json, headers={hdrs.CACHE_CONTROL: "no-store", hdrs.CONTENT_TYPE: "application/json"}
        )

    async def docs(_request: web.Request) -> web.Response:
        headers = {
            hdrs.CACHE_CONTROL: "no-store",
            hdrs.CONTENT_TYPE: HTML,
            "Content-Security-Policy": documents.policy,
        }
        return web.Response(body=documents.page, headers=headers)

    async def admit_page(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(cors_headers(request))

    async def heartbeat() -> None:
        slot, data = 0, frames.heartbeat()
        while True:
            await asyncio.sleep(heartbeat_s / HEARTBEAT_SLOTS)
            fanout.heartbeat(data, slot, HEARTBEAT_SLOTS)
            slot = (slot + 1) % HEARTBEAT_SLOTS

    async def sweep_idle() -> None:
        most = before = 0
        while True:
            await asyncio.sleep(SWEEP_S)
            fanout.sweep_idle(time.monotonic(), STUCK_S)
            now = len(fanout)
            most = max(most, now)
            # Two sweeps in a row must agree: after each window all polling clients are absent for a moment.
            if most >= TRIM_STREAMS_MIN and 2 * max(now, before) < most:
                most = now
                trim_heap()
            before = now

    async def background_tasks(_app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(heartbeat()), asyncio.create_task(sweep_idle())]
        yield
        for task in tasks:
            task.cancel()

    async def end_streams(_app: web.Application) -> None:
        fanout.end_all("shutdown")

    app = web.Application(middlewares=[explain])
    app[ORIGINS] = origins
    app.on_response_prepare.append(admit_page)
    for path, transport in (("stream", serve_event_stream), ("socket", serve_websocket), ("windows", serve_poll)):
        app.router.add_get(f"/clients/{{client_id}}/{path}", handler_of(transport), allow_head=False)
    app.router.add_get("/healthz", healthz)
    app.router.add_get(OPENAPI_PATH, openapi_json)
    app.router.add_get(DOCS_PATH, docs)
    app.cleanup_ctx.append(background_tasks)
    app.on_shutdown.append(end_streams)
    return app
