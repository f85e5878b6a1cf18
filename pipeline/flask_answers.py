"""Answers of the stages that run on Flask: uncached JSON, and problem documents for refusals and HTTP errors."""

from __future__ import annotations

from collections.abc import Callable

import flask
import msgspec
from werkzeug.exceptions import HTTPException

from pipeline.problems import CONTENT_TYPE, Refusal


def uncached_json(document: object, status: int = 200) -> flask.Response:
    """Return JSON that no cache may keep."""
    return flask.Response(
        msgspec.json.encode(document), status, {"Cache-Control": "no-store"}, content_type="application/json"
    )


def problem_response(refusal: Refusal) -> flask.Response:
    """Return the answer to a refused request."""
    return flask.Response(refusal.body(), refusal.status, refusal.headers, content_type=CONTENT_TYPE)


def add_error_handlers(app: flask.Flask, refused: Callable[[Refusal], object] = lambda refusal: None) -> None:
    """Answer every Refusal, and every HTTP error of Flask itself, with a problem document.

    `refused` is called with each refusal before it is answered.
    """

    @app.errorhandler(Refusal)
    def on_refusal(refusal: Refusal) -> flask.Response:
        refused(refusal)
        return problem_response(refusal)

    @app.errorhandler(HTTPException)
    def on_http_error(error: HTTPException) -> flask.Response:
        allow = dict(error.get_headers()).get("Allow")
        reasons = {
            404: "this stage has no such route: check the path",
            405: f"this route does not take it: use {allow}",
        }
        reason = reasons.get(error.code or 500, error.description or error.name)
        return on_refusal(
            Refusal(
                error.code or 500,
                error.name,
                f"{flask.request.method} {flask.request.path[:200]!a}: {reason}",
                headers={} if allow is None else {"Allow": allow},
            )
        )
