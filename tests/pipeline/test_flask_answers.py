"""Answers of the Flask stages: every refusal and HTTP error becomes one form of problem document."""

from __future__ import annotations

import flask
import flask.testing
import pytest

from pipeline.flask_answers import add_error_handlers, admit_origins, uncached_json
from pipeline.origins import Origins
from pipeline.problems import Refusal


@pytest.fixture
def titles() -> list[str]:
    """The titles of the refusals that the application reported."""
    return []


@pytest.fixture
def client(titles: list[str]) -> flask.testing.FlaskClient:
    """A client of an application with one route per kind of answer."""
    app = flask.Flask(__name__)
    add_error_handlers(app, lambda refusal: titles.append(refusal.title))

    @app.get("/json")
    def json() -> flask.Response:
        return uncached_json({"n": 1}, 201)

    @app.get("/refused")
    def refused() -> flask.Response:
        raise Refusal(429, "Too many", "wait", headers={"Retry-After": "7"}, errors=[{"index": 3}])

    @app.get("/broken")
    def broken() -> flask.Response:
        raise RuntimeError("secret")

    return app.test_client()


def test_json_is_not_cached(client: flask.testing.FlaskClient) -> None:
    """The document has its status, and no cache may keep it."""
    answer = client.get("/json")
    assert (answer.status_code, answer.get_json(), answer.mimetype) == (201, {"n": 1}, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"


def test_refusal_is_answered_with_its_headers_and_errors(client: flask.testing.FlaskClient, titles: list[str]) -> None:
    """The answer is the refusal's problem document, and the refusal is reported once."""
    answer = client.get("/refused")
    assert (answer.status_code, answer.content_type) == (429, "application/problem+json")
    assert answer.headers["Retry-After"] == "7"
    assert answer.get_json(force=True) == {
        "type": "/docs#too-many", "title": "Too many", "status": 429, "detail": "wait", "errors": [{"index": 3}],
    }  # fmt: skip
    assert titles == ["Too many"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [("GET", "/nowhere", 404, False), ("PUT", "/json", 405, True), ("GET", "/broken", 500, False)],
)
def test_http_error_is_a_problem_document(
    client: flask.testing.FlaskClient, titles: list[str], method: str, path: str, status: int, allow: bool
) -> None:
    """The detail begins with the request; 405 names the allowed methods; a fault shows no details."""
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    document = answer.get_json(force=True)
    assert document["detail"].startswith(f"{method} {path!r}: ")
    assert "secret" not in answer.text
    assert ("Allow" in answer.headers) is allow
    assert titles == [document["title"]]


INGEST = ("POST /reactions", "GET /healthz", "GET /metrics")
REGISTRY = (
    *("POST /clients", "GET /clients", "GET /clients/<client_id>", "DELETE /clients/<client_id>"),
    *("GET /clients/<client_id>/<any(stream,socket,windows):path>", "POST /clients/<client_id>/tickets"),
    *("GET /clusters", "GET /targets", "GET /healthz", "GET /metrics", "GET /", "GET /ops", "GET /page/<path:name>"),
)


def serving(routes: tuple[str, ...]) -> flask.testing.FlaskClient:
    """Return a client of a stage with `routes`, each of which answers."""
    app = flask.Flask(__name__, static_folder=None)
    add_error_handlers(app)
    for route in routes:
        method, path = route.split()
        app.add_url_rule(path, route, lambda **_: "", methods=[method])
    return app.test_client()


@pytest.mark.parametrize(
    ("routes", "request_line", "advice"),
    [
        (INGEST, "POST /reactions/", "use POST /reactions"),
        (INGEST, "POST /reaction", "use POST /reactions"),
        (INGEST, "POST /REACTIONS", "use POST /reactions"),
        (INGEST, "POST /api/reactions", "use POST /reactions"),
        (INGEST, "POST /reactions/42", "use POST /reactions"),
        (INGEST, "PUT /reaction", "use POST /reactions"),
        (INGEST, "GET /health", "use GET /healthz"),
        (INGEST, "HEAD /health", "use GET /healthz"),
        (INGEST, "POST /", "use one of POST /reactions, GET /healthz, GET /metrics"),
        (INGEST, "POST /\u2764\ufe0f", "use one of POST /reactions, GET /healthz, GET /metrics"),
        (INGEST, "POST /clients", "use POST /clients at the registry (setting registry_port)"),
        (
            INGEST,
            "GET /clients/1/stream",
            "use GET /clients/{client_id}/stream at the registry (setting registry_port)",
        ),
        (INGEST, "GET /reactions", "use POST /reactions"),
        (INGEST, "POST /healthz", "use GET /healthz"),
        (REGISTRY, "POST /clients/", "use POST /clients"),
        (REGISTRY, "GET /clients/", "use GET /clients"),
        (REGISTRY, "POST /client", "use POST /clients"),
        (REGISTRY, "GET /client", "use GET /clients"),
        (REGISTRY, "PATCH /client", "use POST /clients or GET /clients"),
        (REGISTRY, "DELETE /clients/42/", "use DELETE /clients/{client_id}"),
        (REGISTRY, "GET /clients/42/strem", "use GET /clients/{client_id}/stream"),
        (REGISTRY, "GET /clients/42/sockets", "use GET /clients/{client_id}/socket"),
        (REGISTRY, "POST /clients/42/ticket", "use POST /clients/{client_id}/tickets"),
        (REGISTRY, "GET /page", "use GET /page/{name}"),
        (REGISTRY, "GET /admin", "use one of POST /clients, "),
        (REGISTRY, "POST /reactions", "use POST /reactions at ingest (setting ingest_port)"),
        (REGISTRY, "DELETE /clients", "use POST /clients or GET /clients or DELETE /clients/{client_id}"),
        (REGISTRY, "PUT /clients/42", "use GET /clients/{client_id} or DELETE /clients/{client_id}"),
        (REGISTRY, "POST /clients/42/stream", "use GET /clients/{client_id}/stream"),
    ],
)
def test_unknown_route_is_answered_with_the_nearest(routes: tuple[str, ...], request_line: str, advice: str) -> None:
    """A slash too many, a misspelling, another method, another stage: the detail names the method and the route."""
    method, path = request_line.split()
    answer = serving(routes).open(path, method=method)
    known = answer.status_code == 405
    assert known or answer.status_code == 404
    assert ("Allow" in answer.headers) is known
    if method != "HEAD":
        assert f": {advice}" in answer.get_json(force=True)["detail"]


def test_missing_file_of_a_known_route_is_not_a_wrong_route() -> None:
    """A view that answers 404 itself keeps its own words."""
    app = flask.Flask(__name__)
    add_error_handlers(app)

    @app.get("/page/<name>")
    def page(name: str) -> str:
        flask.abort(404, f"there is no file {name!r}")

    answer = app.test_client().get("/page/x.js")
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    assert answer.get_json(force=True)["detail"] == "GET '/page/x.js': there is no file 'x.js'"


HOST = "live.example:8000"
OWN, LISTED, EVIL = "http://live.example:8080", "http://localhost:3000", "http://evil.example"


@pytest.fixture
def done() -> list[str]:
    """What the guarded application has done."""
    return []


@pytest.fixture
def guarded(done: list[str], titles: list[str]) -> flask.testing.FlaskClient:
    """A client of an application that pages may call."""
    app = flask.Flask(__name__)
    add_error_handlers(app)
    admit_origins(
        app, Origins(LISTED, "", 8080, ["live.example"]), lambda refusal: titles.append(refusal.title), files="/files/"
    )

    @app.post("/things")
    def add() -> tuple[str, int]:
        done.append("added")
        return "", 202

    @app.get("/things")
    def move() -> flask.Response:
        return flask.redirect("http://elsewhere.example", 307)

    @app.delete("/things")
    def refuse() -> str:
        raise Refusal(503, "Too many", "wait", headers={"Retry-After": "7"})

    @app.get("/broken")
    def broken() -> flask.Response:
        raise RuntimeError("secret")

    @app.get("/files/<name>")
    def script(name: str) -> str:
        return "1"

    return app.test_client()


ANSWERS = [
    ("POST", "/things", 202),
    ("GET", "/things", 307),
    ("DELETE", "/things", 503),
    ("PUT", "/things", 405),
    ("GET", "/thing", 404),
    ("GET", "/broken", 500),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
@pytest.mark.parametrize("origin", [OWN, LISTED])
def test_every_answer_to_an_allowed_page_has_the_headers(
    guarded: flask.testing.FlaskClient, origin: str, method: str, path: str, status: int
) -> None:
    """Success, redirect, refusal, Flask's own errors and faults: the page may read each, once per header."""
    answer = guarded.open(path, method=method, headers={"Host": HOST, "Origin": origin})
    assert answer.status_code == status
    assert answer.headers.getlist("Access-Control-Allow-Origin") == [origin]
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Expose-Headers"] == "Location, Retry-After"
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize(("method", "path"), [answer[:2] for answer in ANSWERS] + [("OPTIONS", "/things")])
@pytest.mark.parametrize("origin", [EVIL, "null", "", f"{OWN}, {OWN}"])
def test_other_pages_are_refused_before_any_effect(
    guarded: flask.testing.FlaskClient, done: list[str], titles: list[str], origin: str, method: str, path: str
) -> None:
    """403 with the reason, without the headers, and the application has done nothing; the refusal is reported."""
    answer = guarded.open(
        path, method=method, headers={"Host": HOST, "Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    assert (answer.status_code, answer.content_type) == (403, "application/problem+json")
    document = answer.get_json(force=True)
    assert "setting origins" in document["detail"]
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
    assert answer.headers["Vary"] == "Origin"
    assert (done, titles) == ([], [document["title"]])


@pytest.mark.parametrize("origin", [None, "http://evil.example:8080"])
def test_request_for_another_host_has_no_effect(
    guarded: flask.testing.FlaskClient, done: list[str], titles: list[str], origin: str | None
) -> None:
    """A page whose name leads to this machine sends none, or one that the registry's own page would have there."""
    headers = {"Host": "evil.example:8080"} | ({"Origin": origin} if origin else {})
    answer = guarded.post("/things", headers=headers)
    assert (answer.status_code, answer.content_type) == (421, "application/problem+json")
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
    assert (done, titles) == ([], ["Host not allowed"])


@pytest.mark.parametrize("path", ["/things", "/unknown"])
def test_preflight_of_an_allowed_page_names_methods_and_headers(guarded: flask.testing.FlaskClient, path: str) -> None:
    """A page may send a token, JSON and the last id; an unknown path is answered at the request itself."""
    answer = guarded.options(path, headers={"Origin": LISTED, "Access-Control-Request-Method": "DELETE"})
    assert (answer.status_code, answer.text) == (204, "")
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE"
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, Last-Event-ID"


def test_files_of_the_page_are_open_and_readable_for_allowed_pages(guarded: flask.testing.FlaskClient) -> None:
    """A browser sends Origin for the page's own scripts, also where the page itself is refused and must say so.

    A page of another site may run the scripts for the same reason, and read no other file.
    """
    for origin, name, allowed in (
        (EVIL, "script.js", "*"),
        (EVIL, "data.json", None),
        (LISTED, "script.js", LISTED),
        (LISTED, "data.json", LISTED),
    ):
        answer = guarded.get(f"/files/{name}", headers={"Host": HOST, "Origin": origin})
        assert (answer.status_code, answer.text) == (200, "1")
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_request_without_an_origin_is_unchanged(guarded: flask.testing.FlaskClient, done: list[str]) -> None:
    """A program's request passes without CORS headers; OPTIONS is Flask's own answer."""
    answer = guarded.post("/things")
    assert (answer.status_code, done) == (202, ["added"])
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-") or name == "Vary"]
    assert "Allow" in guarded.options("/things").headers
