"""The registry's WSGI application: the routes of clients, of clusters and of health, and the OpenAPI document."""

from __future__ import annotations

import flask

from pipeline.errors import BufferFullError, KafkaUnreachableError
from pipeline.flask_answers import add_documents, add_error_handlers, admit_origins, problem_response, uncached_json
from pipeline.http_messages import RegistryHealth
from pipeline.openapi import delivery as openapi
from pipeline.openapi.page import Served
from pipeline.origins import Origins
from pipeline.rate_limit import RateLimit
from pipeline.registry.client_routes import client_routes
from pipeline.registry.refusals import kafka_unreachable
from pipeline.registry.registrations import Registrations
from pipeline.registry.views import clusters_view

BODY_MAX_BYTES = 4096
RATE_WINDOW_S = 60


def create_app(
    registrations: Registrations, registry_url: str, origins: Origins, per_address_min: int = 0
) -> flask.Flask:
    """Return the application over `registrations`; `registry_url` is the address at which clients reach it, and
    `origins` the rule for pages.

    One address may register `per_address_min` clients per minute (0: no limit).
    """
    app = flask.Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_MAX_BYTES
    app.register_blueprint(client_routes(registrations, registry_url, RateLimit(per_address_min, RATE_WINDOW_S)))

    @app.get("/clusters")
    def clusters() -> flask.Response:
        with registrations.lock:
            return uncached_json(clusters_view(registrations.assignments, registrations.clock_ns()))

    @app.get("/healthz")
    def healthz() -> flask.Response:
        with registrations.lock:
            live = len(registrations.assignments.live(registrations.clock_ns()))
            count = len(registrations.assignments)
        stalled_s = round(registrations.stalled_s(), 3)
        return uncached_json(
            RegistryHealth(status="ok", stage="registry", clients=count, subscribers_live=live, stalled_s=stalled_s)
        )

    @app.errorhandler(KafkaUnreachableError)
    @app.errorhandler(BufferFullError)
    def on_kafka_error(error: Exception) -> flask.Response:
        return problem_response(kafka_unreachable(error))

    add_error_handlers(app)
    add_documents(app, Served(openapi.document))
    registrations.meters.attach(app)
    admit_origins(app, origins, registrations.meters.refused, files="/page/")
    return app
