"""The checks before a stream: the client's own token, one of a bounded number of slots, an id to resume from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import hdrs, web

from pipeline.errors import MessageError
from pipeline.origins import Origins, headers_for
from pipeline.problems import Refusal
from pipeline.sse import LAST_EVENT_ID, MEDIA_TYPE
from pipeline.subscriber.fanout import Fanout
from pipeline.subscriber.frames import EARLIEST, EventId, Missed, Wire, begin_event, parse_event_id, reset_event
from pipeline.tickets import FIELD, TicketGate
from pipeline.tokens import COOKIE, Tokens, bearer, matches


def request_token(request: web.Request) -> str | None:
    """Return the token that a request carries: a Bearer header, else the client's cookie; never one in the URL."""
    authorization = request.headers.get(hdrs.AUTHORIZATION)
    return bearer(authorization) if authorization else request.cookies.get(COOKIE) or None


ORIGINS = web.AppKey("origins", Origins)


def request_ticket(request: web.Request) -> str | None:
    """Return the ticket that a request carries; a redirect adds it at the end, after what a client may have sent."""
    tickets = request.query.getall(FIELD, [])
    return tickets[-1] if tickets else None


def check_origin(request: web.Request) -> bool:
    """Return whether a page sends the request, of an allowed origin.

    Raises Refusal 403 for any other page, and 421 for a request for another host.
    """
    request.app[ORIGINS].check_name(request.headers.get(hdrs.HOST, ""))
    origin = _origin(request)
    if origin is not None:
        request.app[ORIGINS].check(origin, request.host, ticket=FIELD in request.query)
    return origin is not None


def cors_headers(request: web.Request) -> dict[str, str]:
    """Return the headers that let an allowed page read the answer; `Vary` goes to all, since caches keep both."""
    origin = _origin(request)
    if origin is None or not request.app[ORIGINS].allows(origin, request.host, ticket=FIELD in request.query):
        return {hdrs.VARY: hdrs.ORIGIN}
    return headers_for(origin)


def _origin(request: web.Request) -> str | None:
    """Return the request's origin; several headers give a text that is none."""
    given = request.headers.getall(hdrs.ORIGIN, None)
    return None if given is None else ", ".join(given)


class Admission:
    """The checks that every transport makes before it sends anything. Each raises Refusal.

    A client can arrive before its registration's record, or know a window that this subscriber has not read yet:
    both are waited for up to `patience_s`.
    """

    def __init__(
        self, fanout: Fanout, tokens: Tokens, gate: TicketGate, connections_max: int, patience_s: float
    ) -> None:
        self._fanout = fanout
        self._tokens = tokens
        self._gate = gate
        self._connections_max = connections_max
        self._patience_s = patience_s
        self._open = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the `connections_max` slots. Raises Refusal when all are taken."""
        if self._open >= self._connections_max:
            raise Refusal(
                503,
                "Too many streams",
                f"connections_max={self._connections_max} streams are open here: try stream_url again later",
                headers={hdrs.RETRY_AFTER: "5"},
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def authenticate(self, request: web.Request) -> str:
        """Return the id of the client whose ticket or token `request` carries; a ticket is used up. Raises Refusal."""
        client_id = request.match_info["client_id"]
        ticket = request_ticket(request)
        token = request_token(request)
        if ticket is None and token is None:
            raise Refusal(
                401,
                "Token missing",
                "the request has neither a ticket nor a token. HTTP libraries drop Authorization at a redirect to "
                "another port: open the stream_url of POST /clients, whose redirect carries a ticket, or send the "
                "token here as 'Authorization: Bearer <token>'",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )
        digest = await self._tokens.find(client_id, self._patience_s)
        if digest is None:
            # An EventSource that had this stream would always reconnect: 204 stops it (WHATWG HTML, section 9.2.1).
            if LAST_EVENT_ID in request.headers and MEDIA_TYPE in request.headers.get(hdrs.ACCEPT, ""):
                raise Refusal(204, "No such client", f"client {client_id[:80]!a} is not registered any more")
            raise Refusal(404, "No such client", f"client {client_id[:80]!a} is not registered: POST /clients first")
        if ticket is not None:
            self._gate.redeem(ticket, client_id, digest)
        elif token is None or not matches(digest, token):
            raise Refusal(403, "Wrong token", f"the token is not that of client {client_id[:80]!a}: send its own")
        return client_id

    def is_registered(self, client_id: str) -> bool:
        """Whether the client is still registered: it may have been deleted during a wait."""
        return client_id in self._tokens

    async def resume(self, last: str, field: str) -> tuple[int, Wire | None]:
        """Return the position after the event id `last`, and what to send first.

        That is the stream's start if `last` is empty, and a reset if windows are missed, or if no window of the id's
        epoch is kept: after a refusal an EventSource would never come back. Raises Refusal for a malformed id, and for
        a window that its epoch has not reached: any other answer would hide a client that mixes up its streams.
        """
        if not last:
            return self._fanout.head, begin_event(self._newest())
        try:
            event_id = parse_event_id(last, field)
        except MessageError as error:
            raise Refusal(400, "Malformed event id", str(error)) from error
        position = await self._fanout.resolve(event_id, self._patience_s)
        if isinstance(position, int):
            return position, None
        if position.ahead:
            raise Refusal(409, "Unknown event id", _unknown(event_id, position, field))
        self._fanout.resets += 1
        return self._fanout.head, reset_event(event_id, position.reason, self._newest())

    def _newest(self) -> EventId:
        return self._fanout.last_event_id or EARLIEST


def _unknown(last: EventId, missed: Missed, field: str) -> str:
    return f"{field} is {str(last)[:120]!a}, and {missed.reason}: connect without it to receive new windows"
