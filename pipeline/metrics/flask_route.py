"""`GET /metrics` of a Flask application."""

from __future__ import annotations

import flask
from prometheus_client import CollectorRegistry

from pipeline.metrics.exposition import PATH, expose


def add_route(app: flask.Flask, found: CollectorRegistry) -> None:
    """Have `app` answer a scrape with `found`."""

    @app.get(PATH)
    def metrics() -> flask.Response:
        body, content_type = expose(found, flask.request.headers.get("Accept", ""))
        return flask.Response(body, content_type=content_type)
