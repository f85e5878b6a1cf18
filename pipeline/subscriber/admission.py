"""Who may have a stream: the client's own token, one place among a bounded number, and an id that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import hdrs, web

from pipeline.origins import same_host
from pipeline.problems import problem
from pipeline.subscriber.fanout import Fanout
from pipeline.subscriber.frames import BEFORE_ALL, EventId, Missed, Wire, beginning, parse_event_id, reset_event
from pipeline.tokens import COOKIE, Tokens, bearer, matches

SSE_TYPE = "text/event-stream"
LAST_EVENT_ID = "Last-Event-ID"


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
    allowed = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
    return {"Vary": "Origin", **(allowed if same_host(origin, request.host) else {})}


class Refusal(Exception):
    """Carries the answer that a client gets instead of a stream."""

    def __init__(self, response: web.Response, detail: str = "") -> None:
        super().__init__(detail)
        self.response = response


class Admission:
    """The checks that every transport makes before a client gets anything.

    A client may be here before its registration's record, or know a window that this subscriber is about to read:
    both are waited for up to `patience_s`.
    """

    def __init__(self, fanout: Fanout, tokens: Tokens, connections_max: int, patience_s: float) -> None:
        self._fanout = fanout
        self._tokens = tokens
        self._connections_max = connections_max
        self._patience_s = patience_s
        self._open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the `connections_max` places. Raises Refusal when all are taken."""
        if self._open >= self._connections_max:
            raise Refusal(
                refuse(
                    503,
                    "Too many streams",
                    f"connections_max={self._connections_max} streams are open here: come back later, by the "
                    "stream_url",
                    Retry_After="5",
                )
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def client(self, request: web.Request) -> str:
        """Return the id of the client whose token `request` carries. Raises Refusal."""
        client_id = request.match_info["client_id"]
        token = token_of(request)
        if token is None:
            raise Refusal(
                refuse(
                    401,
                    "Token missing",
                    "send the token of POST /clients as 'Authorization: Bearer <token>'",
                    WWW_Authenticate="Bearer",
                )
            )
        digest = await self._tokens.find(client_id, self._patience_s)
        if digest is None:
            # The standard's word for "do not reconnect", to what had this stream and would go on trying.
            if LAST_EVENT_ID in request.headers and SSE_TYPE in request.headers.get(hdrs.ACCEPT, ""):
                raise Refusal(web.Response(status=204))
            raise Refusal(
                refuse(404, "No such client", f"client {client_id[:80]!a} is not registered: POST /clients first")
            )
        if not matches(digest, token):
            raise Refusal(
                refuse(403, "Wrong token", f"the token is not that of client {client_id[:80]!a}: send its own")
            )
        return client_id

    def is_registered(self, client_id: str) -> bool:
        """Whether the client still is: it may have been deleted while something was waited for."""
        return client_id in self._tokens

    async def resumed(self, last: str, field: str) -> tuple[int, Wire | None]:
        """Return the position after the event id `last`, and what to send first: where the stream begins, if `last` is
        empty, or a reset when windows are missed.

        Raises MessageError for what is no id, and Refusal for one that this feed never gave: to answer that with
        anything else would hide a client that mixes up its streams.
        """
        if not last:
            return self._fanout.head, beginning(self._newest())
        event_id = parse_event_id(last, field)
        found = await self._fanout.settle(event_id, self._patience_s)
        if isinstance(found, int):
            return found, None
        if not found.settled:
            detail = _unknown(event_id, found, field, self._fanout.last_event_id)
            raise Refusal(refuse(409, f"Unknown {field}", detail), detail)
        self._fanout.resets += 1
        return self._fanout.head, reset_event(event_id, found.reason, self._newest())

    def _newest(self) -> EventId:
        return self._fanout.last_event_id or BEFORE_ALL


def _unknown(last: EventId, found: Missed, field: str, newest: EventId | None) -> str:
    known = "no window has come yet" if newest is None else f"the newest is {newest}"
    return f"{field} is {str(last)[:120]!a}, and {found.reason} ({known}): connect without one to go on from now"
