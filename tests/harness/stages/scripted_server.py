"""A registry and a subscriber, on ports of their own, that follow a test's script."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import WSCloseCode, web

from pipeline.addresses import websocket_url
from pipeline.messages import Hop, TypeCount, Window, encode

Event = tuple[str, str, bytes]
PATHS = {"sse": "stream", "websocket": "socket", "poll": "windows"}


def window(number: int, epoch: str = "e", emoji: str = "😂") -> Event:
    """Return a window's event, as a subscriber sends it."""
    hops = (Hop("main-publisher", 1, 2, 3), Hop("cluster-publisher-1", 4, 5, 6), Hop("subscriber-1-1", 7, 8, 9))
    content = Window(epoch, number, 0, 0, {}, 38, [TypeCount(emoji, 38, 4)], hops=hops)
    return f"{epoch}:{number}", "window", encode(content)


def reset(reason: str, last: str, after: str = "") -> Event:
    """Return a reset's event."""
    return after, "reset", encode({"reason": reason, "last_event_id": last, "resumes_after": after})


@dataclass
class Send:
    """Send events, then hold the connection, end it properly, or cut it. A poll's answer holds all of them.

    `close` is the code and reason with which a WebSocket ends properly.
    """

    events: list[Event]
    then: Literal["hold", "end", "cut"] = "hold"
    retry_ms: int | None = None
    content_type: str = "text/event-stream"
    close: tuple[int, str] = (WSCloseCode.GOING_AWAY, "")


@dataclass
class Refuse:
    """Answer with a problem document."""

    status: int
    detail: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """Return the answer."""
        body = None if self.status == 204 else json.dumps({"status": self.status, "detail": self.detail})
        kind = None if body is None else "application/problem+json"
        return web.Response(status=self.status, text=body, content_type=kind, headers=self.headers)


class Scripted:
    """The servers. Each item of `acts`, `registering`, `redirecting` and `deleting` answers one request, in order.

    After the last of `acts` a connection is held open; after the last of the others the registry answers as usual.
    """

    def __init__(self, *acts: Send | Refuse) -> None:
        self.acts = deque(acts)
        self.registering: deque[Refuse] = deque()
        self.redirecting: deque[Refuse] = deque()
        self.registered: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.deleting: deque[Refuse] = deque()
        self.afters: list[str] = []
        self.requests: list[web.Request] = []
        self.open = 0
        self._held = asyncio.Event()
        self._runners: list[web.AppRunner] = []

    async def __aenter__(self) -> Self:
        """Serve."""
        registry, subscriber = web.Application(), web.Application()
        registry.router.add_post("/clients", self._register)
        registry.router.add_delete("/clients/{id}", self._delete)
        for path in PATHS.values():
            registry.router.add_get(f"/clients/{{id}}/{path}", self._redirect)
            subscriber.router.add_get(f"/clients/{{id}}/{path}", self._serve)
        self.url, self.subscriber_url = [await self._start(app) for app in (registry, subscriber)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and release the connections that are held open."""
        self._held.set()
        for runner in self._runners:
            await runner.cleanup()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition()` is true."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)

    async def _start(self, app: web.Application) -> str:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _register(self, request: web.Request) -> web.Response:
        if self.registering:
            return self.registering.popleft().response()
        options = await request.json()
        self.registered.append(options)
        name = f"c{len(self.registered)}"
        path = PATHS[options.get("transport", "sse")]
        assignment = {"cluster": options.get("cluster", "1"), "subscriber": "1"}
        answer = {"client_id": name, "token": f"token-{name}", "live": True, **assignment}
        stream_url = f"{self.url}/clients/{name}/{path}"
        if path == "socket":
            stream_url = websocket_url(stream_url)
        return web.json_response({**answer, "stream_url": stream_url}, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        if self.deleting:
            return self.deleting.popleft().response()
        assert self._is_allowed(request)
        self.deleted.append(request.match_info["id"])
        return web.Response(status=204)

    async def _redirect(self, request: web.Request) -> web.Response:
        if self.redirecting:
            return self.redirecting.popleft().response()
        return web.Response(status=307, headers={"Location": f"{self.subscriber_url}{request.path}?ticket=t"})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        act = self.acts.popleft() if self.acts else Send([])
        if not self._is_allowed(request):
            act = Refuse(401, "token missing")
        self.open += 1
        try:
            if isinstance(act, Refuse):
                self.afters.append(request.headers.get("Last-Event-ID") or request.query.get("after", ""))
                return act.response()
            if request.path.endswith("/socket"):
                return await self._socket(request, act)
            if request.path.endswith("/windows"):
                return await self._poll(request, act)
            return await self._stream(request, act)
        finally:
            self.open -= 1

    def _is_allowed(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer token-{request.match_info['id']}"

    async def _stream(self, request: web.Request, act: Send) -> web.StreamResponse:
        self.afters.append(request.headers.get("Last-Event-ID", ""))
        response = web.StreamResponse(headers={"Content-Type": act.content_type})
        response.force_close()
        await response.prepare(request)
        await response.write(b": hello\n\n")
        if act.retry_ms is not None:
            await response.write(b"retry: %d\n\n" % act.retry_ms)
        await response.write(
            b"".join(b"id: %b\nevent: %b\ndata: %b\n\n" % (a.encode(), b.encode(), c) for a, b, c in act.events)
        )
        await self._then(request, act)
        return response

    async def _socket(self, request: web.Request, act: Send) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.afters.append(request.query.get("after", ""))
        for event_id, event, data in act.events:
            await ws.send_str(json.dumps({"id": event_id, "event": event, "data": json.loads(data)}))
        if act.then == "hold":
            await ws.receive()
        elif act.then == "end":
            code, reason = act.close
            await ws.close(code=code, message=reason.encode())
        else:
            await self._then(request, act)
        return ws

    async def _poll(self, request: web.Request, act: Send) -> web.StreamResponse:
        self.afters.append(request.query.get("after", ""))
        if act.then == "cut" or not act.events:
            await self._then(request, act)
        events = [{"id": a, "event": b, "data": json.loads(c)} for a, b, c in act.events]
        after = act.events[-1][0] if act.events else request.query.get("after", "")
        return web.json_response({"events": events, "after": after})

    async def _then(self, request: web.Request, act: Send) -> None:
        if act.then == "hold":
            await self._held.wait()
        elif act.then == "cut":
            assert request.transport is not None
            # Let the written bytes arrive before the reset.
            await asyncio.sleep(0.01)
            request.transport.abort()
