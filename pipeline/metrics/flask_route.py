"""`GET /metrics` of a Flask application."""

from __future__ import annotations

import flask
from prometheus_client import CollectorRegistry

from pipeline.metrics.exposition import PATH, expose


def add_route(app: flask.Flask, registry: CollectorRegistry) -> None:
    """Add a route to `app` that answers a scrape with `registry`."""

    @app.get(PATH)
    def metrics() -> flask.Response:
        body, content_type = expose(registry, flask.request.headers.get("Accept", ""))
        return flask.Response(body, headers={"Cache-Control": "no-store"}, content_type=content_type)
