"""Answers of the Flask stages: every refusal and HTTP error becomes one form of problem document."""

from __future__ import annotations

import flask
import flask.testing
import pytest

from pipeline.flask_answers import add_error_handlers, uncached_json
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
        "title": "Too many", "status": 429, "detail": "wait", "errors": [{"index": 3}],
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
