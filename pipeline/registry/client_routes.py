"""The routes of clients: register, list, show, remove, and the ways to the subscriber that serves a client."""

from __future__ import annotations

import secrets

import flask
import msgspec

from pipeline import sse, tickets
from pipeline.flask_answers import uncached_json
from pipeline.http_messages import ClientList, RegisteredClient, TicketView
from pipeline.messages import FEED_START, Registration
from pipeline.problems import Refusal
from pipeline.rate_limit import RateLimit, sender_of
from pipeline.registry.assignments import Assignment, subscriber_of
from pipeline.registry.registrations import Registrations
from pipeline.registry.requests import new_client, page_of, token_of
from pipeline.registry.views import PATHS, client_view, handshake_location, of_transport
from pipeline.tokens import COOKIE, matches

# An EventSource asks again after this time while no subscriber is live.
RETRY_MS = 2000


def client_routes(registrations: Registrations, registry_url: str, limit: RateLimit) -> flask.Blueprint:
    """Return the routes below `/clients`; `limit` is that of registrations per address."""
    routes = flask.Blueprint("clients", __name__)

    @routes.post("/clients")
    def register() -> flask.Response:
        wanted = new_client(flask.request)
        check_rate(limit, sender_of(flask.request.remote_addr or ""), registrations.clock_ns())
        registration, token = registrations.register(wanted.cluster, wanted.transport)
        view = client_view(registration, registry_url, live=True)
        with registrations.lock:
            newest = registrations.assignments.last_event_id(subscriber_of(registration)) or FEED_START
        document = RegisteredClient(**msgspec.structs.asdict(view), token=token, last_event_id=newest)
        response = uncached_json(document, 201)
        response.headers["Location"] = f"{registry_url}/clients/{registration.client_id}"
        response.set_cookie(COOKIE, token, path=f"/clients/{registration.client_id}", httponly=True, samesite="Strict")
        return response

    @routes.get("/clients")
    def list_clients() -> flask.Response:
        after, page_limit = page_of(flask.request)
        with registrations.lock:
            now_ns, assignments = registrations.clock_ns(), registrations.assignments
            clients = [
                client_view(client, registry_url, assignments.has_live_subscriber(client.client_id, now_ns))
                for client in assignments.clients(after, page_limit)
            ]
            return uncached_json(ClientList(len(assignments), clients))

    @routes.get("/clients/<client_id>")
    def show(client_id: str) -> flask.Response:
        with registrations.lock:
            registration = registrations.client(client_id)
            live = registrations.assignments.has_live_subscriber(client_id, registrations.clock_ns())
        return uncached_json(client_view(registration, registry_url, live))

    @routes.delete("/clients/<client_id>")
    def remove(client_id: str) -> flask.Response:
        token = token_of(flask.request)
        check_token(registration_of(client_id), token)
        registrations.remove(client_id)
        response = flask.Response(status=204)
        response.delete_cookie(COOKIE, path=f"/clients/{client_id}", httponly=True, samesite="Strict")
        return response

    @routes.post("/clients/<client_id>/tickets")
    def issue_ticket(client_id: str) -> flask.Response:
        assignment = assign(client_id)
        transport = assignment.registration.transport
        url = of_transport(direct_url(assignment, PATHS[transport]), transport)
        subscriber = assignment.registration.subscriber
        return uncached_json(TicketView(url, subscriber, tickets.LIFE_S), 201)

    @routes.get(f"/clients/<client_id>/<any({','.join(PATHS.values())}):path>")
    def redirect(client_id: str, path: str) -> flask.Response:
        try:
            assignment = assign(client_id)
        except Refusal as refusal:
            return answer_event_source(flask.request, refusal)
        return redirection(direct_url(assignment, path))

    # werkzeug matches a WebSocket handshake with such a route only.
    @routes.get(f"/clients/<client_id>/{PATHS['websocket']}", websocket=True)
    def redirect_handshake(client_id: str) -> flask.Response:
        url = direct_url(assign(client_id), PATHS["websocket"])
        return redirection(handshake_location(url, registry_url))

    def assign(client_id: str) -> Assignment:
        """Return the subscriber of the client whose token the request carries. Raises Refusal."""
        check_token(registration_of(client_id), token_of(flask.request, or_cookie=True))
        return registrations.assign(client_id)

    def registration_of(client_id: str) -> Registration:
        """Return a client's registration. Raises Refusal 404 for an unknown client."""
        with registrations.lock:
            return registrations.client(client_id)

    def direct_url(assignment: Assignment, path: str) -> str:
        """Return the address at the client's subscriber, with the request's query and a new ticket."""
        client = assignment.registration
        # The wall clock: the subscriber compares with its own.
        now_ns, nonce = registrations.wall_ns(), secrets.token_hex(8)
        ticket = tickets.issue(client.token_sha256, client.client_id, subscriber_of(client).key, now_ns, nonce)
        query = flask.request.query_string.decode("latin-1")
        query += f"{'&' if query else ''}{tickets.FIELD}={ticket}"
        return f"{assignment.subscriber.url}/clients/{client.client_id}/{path}?{query}"

    return routes


def check_token(registration: Registration, token: str) -> None:
    """Raise Refusal 403 if `token` is not this client's."""
    if not matches(registration.token_sha256, token):
        client_id = registration.client_id
        raise Refusal(403, "Wrong token", f"the token is not that of client {client_id!r}: send the client's own")


def redirection(location: str) -> flask.Response:
    """Return a 307; a cached one would hold a used ticket, and could point to a subscriber that has ended."""
    return flask.Response(status=307, headers={"Location": location, "Cache-Control": "no-store"})


def answer_event_source(request: flask.Request, refusal: Refusal) -> flask.Response:
    """Answer a request for a stream that was refused. Raises the refusal, unless an EventSource sent the request.

    An EventSource gives up at every status but 200 (WHATWG HTML, section 9.2.1). While no subscriber is live it gets
    an empty stream, after which it returns. One whose client was deleted gets 204, as at a subscriber.
    """
    if sse.MEDIA_TYPE in request.headers.get("Accept", ""):
        if refusal.status == 503:
            body = sse.comment(refusal.detail) + sse.retry(RETRY_MS)
            return flask.Response(body, headers={"Cache-Control": "no-store"}, content_type=sse.MEDIA_TYPE)
        if refusal.status == 404 and sse.LAST_EVENT_ID in request.headers:
            return flask.Response(status=204)
    raise refusal


def check_rate(limit: RateLimit, address: str, now_ns: int) -> None:
    """Count one registration of `address`; raise Refusal 429 if it is over the limit."""
    if not limit.hit(address, 1, now_ns):
        raise Refusal(
            429,
            "Too many registrations",
            f"{address} registers more than registrations_per_address_min={limit.most} clients per minute: "
            "wait as Retry-After says, and use the clients that exist",
            headers={"Retry-After": str(limit.wait_s(now_ns))},
        )
