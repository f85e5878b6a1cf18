"""The registry's HTTP side: routes over what an `Registrations` knows and carries."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import flask
import msgspec
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from pipeline.errors import BufferFullError, EmoStreamError, KafkaUnreachableError, RegistryFullError
from pipeline.messages import Transport
from pipeline.problems import problem
from pipeline.rate_limit import RateLimit
from pipeline.registry.registrations import Registrations
from pipeline.registry.views import PATHS, client_view, clusters_view
from pipeline.tokens import COOKIE, bearer, matches

BODY_MAX_BYTES = 4096
PAGE_MAX = 10_000
RETRY_AFTER_S = "2"
FULL_RETRY_AFTER_S = "60"
RATE_WINDOW_S = 60
USABLE = 'send {"cluster": "<name>", "transport": "sse" | "websocket" | "poll"}, either left out, or no body'


class NewClient(msgspec.Struct, frozen=True):
    """The body of `POST /clients`."""

    cluster: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,50}$")] | None = None
    transport: Transport = "sse"


_decode_new_client = msgspec.json.Decoder(NewClient).decode


def refuse(status: int, title: str, detail: str, **headers: str) -> flask.Response:
    """Return a problem document; `headers` name their words with underscores."""
    body, kind = problem(status, title, detail)
    return flask.Response(
        body, status, {name.replace("_", "-"): value for name, value in headers.items()}, content_type=kind
    )


def answer(document: object, status: int = 200) -> flask.Response:
    """Return JSON that nobody keeps: the state changes all the time."""
    return flask.Response(
        msgspec.json.encode(document), status, {"Cache-Control": "no-store"}, content_type="application/json"
    )


def nobody(cluster: str | None) -> flask.Response:
    """Say that no subscriber is live."""
    where = "" if cluster is None else f" in cluster {cluster!r}"
    return refuse(
        503,
        "No live subscriber",
        f"no subscriber{where} has announced itself lately: start one (python -m pipeline.subscriber), "
        "look at GET /clusters, or try again",
        Retry_After=RETRY_AFTER_S,
    )


def unknown(client_id: str) -> flask.Response:
    """Say that there is no such client."""
    return refuse(
        404,
        "No such client",
        f"client {client_id[:80]!a} is not registered: POST /clients to become one",
    )


def new_client(request: flask.Request) -> NewClient | flask.Response:
    """Read the body of `POST /clients`, or say what is wrong with it. No body asks for nothing special."""
    body = request.get_data()
    if not body:
        return NewClient()
    if request.mimetype != "application/json":
        return refuse(
            415,
            "Not JSON",
            f"Content-Type is {request.mimetype[:80]!a}: send application/json, or no body",
        )
    try:
        return _decode_new_client(body)
    except msgspec.ValidationError as error:
        return refuse(422, "Unusable registration", f"{error}: {USABLE}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return refuse(400, "Malformed JSON", f"the body is not JSON ({error}): {USABLE}")


def page_of(request: flask.Request) -> tuple[str, int] | flask.Response:
    """Read `after` and `limit` of `GET /clients`."""
    limit = request.args.get("limit", "1000")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= PAGE_MAX):
        return refuse(422, "Unusable limit", f"limit is {limit[:80]!a}: give a number from 1 to {PAGE_MAX}")
    return request.args.get("after", ""), int(limit)


def sender(address: str | None) -> str:
    """Who registrations are counted for: an address, of IPv6 its /64, which one household or machine has whole."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        # A proxy may have put a port behind it, or "unknown".
        return address or ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


def create_app(enrolment: Registrations, registry_url: str, per_address_min: int = 0, proxies: int = 0) -> flask.Flask:
    """Return the application over `enrolment`; `registry_url` is where clients reach it.

    One address may register `per_address_min` clients a minute (0: any number). The address is that of the connection;
    behind `proxies` proxies it is the one that the first of them named in X-Forwarded-For.
    """
    app = flask.Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_MAX_BYTES
    limit = RateLimit(per_address_min, RATE_WINDOW_S)
    if proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=0, x_host=0)  # type: ignore[method-assign]

    def over_limit() -> flask.Response | None:
        now_ns, address = enrolment.clock_ns(), sender(flask.request.remote_addr)
        if limit.hit(address, 1, now_ns):
            return None
        return refuse(
            429,
            "Too many registrations",
            f"{address} registers more than registrations_per_address_min={limit.most} clients a minute: "
            "wait as Retry-After says, and use the clients there are",
            Retry_After=str(limit.wait_s(now_ns)),
        )

    def shown(client_id: str) -> dict[str, object] | None:
        with enrolment.lock:
            registration = enrolment.roster.client(client_id)
            if registration is None:
                return None
            return client_view(registration, registry_url, enrolment.roster.is_held(client_id, enrolment.clock_ns()))

    @app.post("/clients")
    def register() -> flask.Response:
        wanted = new_client(flask.request)
        if isinstance(wanted, flask.Response):
            return wanted
        refusal = over_limit()
        if refusal is not None:
            return refusal
        registered = enrolment.register(wanted.cluster, wanted.transport)
        if registered is None:
            return nobody(wanted.cluster)
        registration, token = registered
        document = client_view(registration, registry_url, live=True)
        response = answer({**document, "token": token}, 201)
        response.headers["Location"] = f"{registry_url}/clients/{registration.client_id}"
        response.set_cookie(COOKIE, token, path=f"/clients/{registration.client_id}", httponly=True, samesite="Strict")
        return response

    @app.get("/clients")
    def clients() -> flask.Response:
        page = page_of(flask.request)
        if isinstance(page, flask.Response):
            return page
        with enrolment.lock:
            now_ns, roster = enrolment.clock_ns(), enrolment.roster
            listed = [
                client_view(client, registry_url, roster.is_held(client.client_id, now_ns))
                for client in roster.clients(*page)
            ]
            return answer({"count": len(roster), "clients": listed})

    @app.get("/clients/<client_id>")
    def client(client_id: str) -> flask.Response:
        document = shown(client_id)
        return unknown(client_id) if document is None else answer(document)

    @app.delete("/clients/<client_id>")
    def remove(client_id: str) -> flask.Response:
        token = bearer(flask.request.headers.get("Authorization", ""))
        if token is None:
            return refuse(
                401,
                "Token missing",
                "send the token of POST /clients as 'Authorization: Bearer <token>'",
                WWW_Authenticate="Bearer",
            )
        with enrolment.lock:
            registration = enrolment.roster.client(client_id)
        if registration is None:
            return unknown(client_id)
        if not matches(registration.token_sha256, token):
            return refuse(403, "Wrong token", f"the token is not that of client {client_id!r}: send its own")
        try:
            enrolment.remove(client_id)
        except KeyError:
            return unknown(client_id)
        response = flask.Response(status=204)
        response.delete_cookie(COOKIE, path=f"/clients/{client_id}", httponly=True, samesite="Strict")
        return response

    @app.get(f"/clients/<client_id>/<any({','.join(PATHS.values())}):path>")
    def lead(client_id: str, path: str) -> flask.Response:
        try:
            base = enrolment.stream_base(client_id)
        except KeyError:
            return unknown(client_id)
        if base is None:
            return nobody(None)
        query = flask.request.query_string.decode("latin-1")
        location = f"{base}/clients/{client_id}/{path}{'?' if query else ''}{query}"
        # A cached redirect would lead to a subscriber long gone.
        return flask.Response(status=307, headers={"Location": location, "Cache-Control": "no-store"})

    @app.get("/clusters")
    def clusters() -> flask.Response:
        with enrolment.lock:
            return answer({"clusters": clusters_view(enrolment.roster, enrolment.clock_ns())})

    @app.get("/healthz")
    def healthz() -> flask.Response:
        with enrolment.lock:
            live = len(enrolment.roster.live(enrolment.clock_ns()))
            count = len(enrolment.roster)
        return answer({"status": "ok", "stage": "registry", "clients": count, "subscribers_live": live})

    @app.errorhandler(EmoStreamError)
    def unable(error: EmoStreamError) -> flask.Response:
        if isinstance(error, RegistryFullError):
            return refuse(503, "Too many clients", str(error), Retry_After=FULL_RETRY_AFTER_S)
        if not isinstance(error, (KafkaUnreachableError, BufferFullError)):
            raise error
        return refuse(503, "Kafka is out of reach", str(error), Retry_After=RETRY_AFTER_S)

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> flask.Response:
        path = ascii(flask.request.path[:200])
        detail = f"{flask.request.method} {path}: {error.description}"
        allow = dict(error.get_headers()).get("Allow")
        return refuse(error.code or 500, error.name, detail, **({"Allow": allow} if allow is not None else {}))

    enrolment.meters.attach(app)
    return app
