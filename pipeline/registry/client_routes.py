"""The routes of clients: register, list, show, remove, and redirect to the subscriber that serves a client."""

from __future__ import annotations

import flask

from pipeline.flask_answers import uncached_json
from pipeline.problems import Refusal
from pipeline.rate_limit import RateLimit
from pipeline.registry.registrations import Registrations
from pipeline.registry.requests import new_client, page_of, sender, token_of
from pipeline.registry.views import PATHS, client_view
from pipeline.tokens import COOKIE, matches


def client_routes(registrations: Registrations, registry_url: str, limit: RateLimit) -> flask.Blueprint:
    """Return the routes below `/clients`; `limit` is that of registrations per address."""
    routes = flask.Blueprint("clients", __name__)

    @routes.post("/clients")
    def register() -> flask.Response:
        wanted = new_client(flask.request)
        check_rate(limit, sender(flask.request.remote_addr), registrations.clock_ns())
        registration, token = registrations.register(wanted.cluster, wanted.transport)
        document = client_view(registration, registry_url, live=True)
        response = uncached_json({**document, "token": token}, 201)
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
            return uncached_json({"count": len(assignments), "clients": clients})

    @routes.get("/clients/<client_id>")
    def show(client_id: str) -> flask.Response:
        with registrations.lock:
            registration = registrations.client(client_id)
            live = registrations.assignments.has_live_subscriber(client_id, registrations.clock_ns())
        return uncached_json(client_view(registration, registry_url, live))

    @routes.delete("/clients/<client_id>")
    def remove(client_id: str) -> flask.Response:
        token = token_of(flask.request)
        with registrations.lock:
            registration = registrations.client(client_id)
        if not matches(registration.token_sha256, token):
            raise Refusal(403, "Wrong token", f"the token is not that of client {client_id!r}: send the client's own")
        registrations.remove(client_id)
        response = flask.Response(status=204)
        response.delete_cookie(COOKIE, path=f"/clients/{client_id}", httponly=True, samesite="Strict")
        return response

    @routes.get(f"/clients/<client_id>/<any({','.join(PATHS.values())}):path>")
    def redirect(client_id: str, path: str) -> flask.Response:
        base = registrations.subscriber_url(client_id)
        query = flask.request.query_string.decode("latin-1")
        location = f"{base}/clients/{client_id}/{path}{'?' if query else ''}{query}"
        # A cached redirect could point to a subscriber that has ended.
        return flask.Response(status=307, headers={"Location": location, "Cache-Control": "no-store"})

    return routes


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
