"""Answers of the stages that run on Flask: uncached JSON, problem documents, and what pages of other origins get."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import flask
import msgspec
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, WebsocketMismatch

from pipeline.openapi.page import Served
from pipeline.openapi.parts import DOCS_PATH, HTML, OPENAPI_PATH
from pipeline.origins import PREFLIGHT, Origins, headers_for
from pipeline.problems import BLANK, CONTENT_TYPE, Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

FAILED = "emostream.failed"
"""In a request's environment: the Refusal, or another exception, with which something before Flask ended, to answer."""

# A path that is less like every route than this gets the list of all routes instead of the nearest.
LIKENESS_MIN = 0.6
_ANY = re.compile(r"<any\(([^)]*)\):\w+>")
_PARAMETER = re.compile(r"<(?:[^<>]*:)?(\w+)>")


def uncached_json(document: object, status: int = 200) -> flask.Response:
    """Return JSON that no cache may keep."""
    return flask.Response(
        msgspec.json.encode(document), status, {"Cache-Control": "no-store"}, content_type="application/json"
    )


def problem_response(refusal: Refusal) -> flask.Response:
    """Return the answer to a refused request."""
    return flask.Response(refusal.body(), refusal.status, refusal.headers, content_type=CONTENT_TYPE)


def add_documents(app: flask.Flask, documents: Served) -> None:
    """Add the routes of the OpenAPI document: as JSON, and as a page."""

    @app.get(OPENAPI_PATH)
    def openapi() -> flask.Response:
        return flask.Response(documents.json, headers={"Cache-Control": "no-store"}, content_type="application/json")

    @app.get(DOCS_PATH)
    def docs() -> flask.Response:
        headers = {"Cache-Control": "no-store", "Content-Security-Policy": documents.policy}
        return flask.Response(documents.page, headers=headers, content_type=HTML)


def admit_origins(
    app: flask.Flask, origins: Origins, refused: Callable[[Refusal], object], files: str | None = None
) -> None:
    """Answer pages of other origins and requests for other hosts as `origins` says, before Flask.

    `refused` is called with each refusal before it is answered. A request without `Origin` costs two look-ups. Paths
    that begin with `files` are open to all: a browser names the origin of its own page when it loads scripts, and a
    page that is refused can only say so if it is loaded. For the same reason every page may run the scripts there,
    which hold no data.
    """
    answer = app.wsgi_app

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            origins.check_name(environ.get("HTTP_HOST", ""))
        except Refusal as refusal:
            refused(refusal)
            return problem_response(refusal)(environ, start_response)
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            return answer(environ, start_response)
        try:
            origins.check(origin, environ.get("HTTP_HOST", ""))
        except Refusal as refusal:
            if files is not None and environ["PATH_INFO"].startswith(files):
                script = environ["PATH_INFO"].endswith(".js")
                return answer(environ, _readable_by_all(start_response) if script else start_response)
            refused(refusal)
            return problem_response(refusal)(environ, start_response)
        headers = headers_for(origin)
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return flask.Response(status=204, headers={**headers, **PREFLIGHT})(environ, start_response)

        def start(status: str, given: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*given, *headers.items()], *exc_info)

        return answer(environ, start)

    app.wsgi_app = guarded  # type: ignore[method-assign]


def _readable_by_all(start_response: StartResponse) -> StartResponse:
    def start(status: str, given: list[tuple[str, str]], *exc_info: Any) -> Any:
        return start_response(status, [*given, ("Access-Control-Allow-Origin", "*")], *exc_info)

    return start


def add_error_handlers(app: flask.Flask, refused: Callable[[Refusal], object] = lambda refusal: None) -> None:
    """Answer every Refusal, and every HTTP error of Flask itself, with a problem document; so too what FAILED names.

    `refused` is called with each refusal before it is answered. The detail of a 404 or 405 names the nearest route.
    """

    @app.before_request
    def fail() -> None:
        if failure := flask.request.environ.get(FAILED):
            raise failure

    @app.errorhandler(Refusal)
    def on_refusal(refusal: Refusal) -> flask.Response:
        refused(refusal)
        return problem_response(refusal)

    # A path with two slashes is unknown: a redirect to the path with one would be an answer of every route.
    app.url_map.merge_slashes = False

    @app.errorhandler(WebsocketMismatch)
    def on_handshake(_error: HTTPException) -> flask.Response:
        return on_refusal(
            Refusal(
                400,
                "Not a WebSocket route",
                f"{flask.request.path[:200]!a}: no WebSocket is served at this path: register with transport "
                "websocket, and open its stream_url",
            )
        )

    @app.errorhandler(HTTPException)
    def on_http_error(error: HTTPException) -> flask.Response:
        request = flask.request
        if error.code == 405 and request.environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            # werkzeug finds no route for it if the path has several methods.
            return on_handshake(error)
        kept = {name: value for name, value in error.get_headers() if name in ("Allow", "Content-Range")}
        reason = error.description or error.name
        if error.code == 405:
            reason = f"this route does not take {request.method}: {_advice(app.url_map, request.method, request.path)}"
        elif error.code == 404 and request.url_rule is None:
            reason = f"this stage has no such route: {_advice(app.url_map, request.method, request.path)}"
        return on_refusal(
            Refusal(
                error.code or 500,
                error.name,
                f"{request.method} {request.path[:200]!a}: {reason}",
                headers=kept,
                problem_type=BLANK,
            )
        )


class _Route(NamedTuple):
    """One method of one route; `stage` is empty for the stage that answers."""

    method: str
    path: str
    stage: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}{self.stage}"


OTHER_STAGES = (
    _Route("POST", "/reactions", " at ingest (setting ingest_port)"),
    _Route("POST", "/clients", " at the registry (setting registry_port)"),
    _Route("GET", "/clients/{client_id}/stream", " at the registry (setting registry_port)"),
)


def _advice(routes: Map, method: str, path: str) -> str:
    """Return which route to use instead: the one that is most like the request's, or any of this stage's."""
    # A route for WebSockets has the path of another one.
    own = list(dict.fromkeys(_routes(routes)))
    paths = {route.path for route in own}
    likeness = {
        route: _likeness(route.path, path[:200])
        for route in (*own, *(route for route in OTHER_STAGES if route.path not in paths))
    }
    takes = "GET" if method == "HEAD" else method
    best = max(likeness, key=lambda route: (likeness[route], route.method == takes))
    if likeness[best] < LIKENESS_MIN:
        return f"use one of {', '.join(map(str, own))}"
    if best.method == takes:
        return f"use {best}"
    near = [route for route in likeness if route.path == best.path]
    # Another route may take this method: DELETE /clients is meant to be DELETE /clients/{client_id}.
    near += [route for route in likeness if route.method == takes and likeness[route] >= LIKENESS_MIN]
    return f"use {' or '.join(map(str, near))}"


def _routes(routes: Map) -> Iterator[_Route]:
    """Yield every method of every route, with the words of an `any` converter one by one."""
    for rule in routes.iter_rules():
        words = _ANY.search(rule.rule)
        for word in words[1].split(",") if words else ("",):
            path = _PARAMETER.sub(r"{\1}", _ANY.sub(word, rule.rule))
            # A rule for WebSockets has no methods: its handshake is a GET.
            for method in sorted((rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}):
                yield _Route(method, path)


def _likeness(template: str, path: str) -> float:
    """Return how alike a route and a path are, from 0 to 1; a parameter is like whatever stands in its place."""
    given = path.lower().split("/")
    filled = [
        given[index] if part.startswith("{") and index < len(given) and given[index] else part.strip("{}")
        for index, part in enumerate(template.split("/"))
    ]
    return difflib.SequenceMatcher(None, "/".join(filled), "/".join(given)).ratio()
