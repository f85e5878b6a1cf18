"""Ingest's WSGI application: `POST /reactions`, its health and metrics, and its OpenAPI document."""

from __future__ import annotations

import os
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Literal

from flask import Flask, Response, request

from pipeline.flask_answers import add_documents, add_error_handlers, admit_origins, uncached_json
from pipeline.http_messages import IngestHealth
from pipeline.ingest.reactions import JSON, Reactions
from pipeline.metrics.exposition import bare_registry
from pipeline.metrics.flask_route import add_route
from pipeline.openapi import ingest as openapi
from pipeline.openapi.page import Served
from pipeline.problems import Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

STAGE: Literal["ingest"] = "ingest"


def create_app(reactions: Reactions) -> Flask:
    """Return the WSGI application of one worker."""
    app = Flask(__name__, static_folder=None)
    values, buffer, flusher = reactions.values, reactions.buffer, reactions.flusher

    @app.post("/reactions")
    def post_reactions() -> Response:
        environ = request.environ
        taken = reactions.take(*read_body(environ, values.body_max_bytes), environ)
        if reactions.durable:
            try:
                refused = taken.flushed.result(reactions.durable_wait_s)
            except FutureTimeout as error:
                raise reactions.not_acknowledged() from error
            taken.check(refused)
        return Response(taken.answer, 202, content_type=JSON)

    @app.get("/healthz")
    def healthz() -> Response:
        silent_s = flusher.silent_s()
        silent, refusal, full = silent_s > values.kafka_out_s, flusher.refusal, flusher.disk_full
        faults = {"Kafka is out of reach": silent, "Kafka refuses reactions": refusal, "Disk nearly full": full}
        status = next((status for status, fault in faults.items() if fault), "ok")
        health = IngestHealth(
            stage=STAGE,
            status=status,
            pid=os.getpid(),
            accepted=buffer.accepted,
            waiting=len(buffer),
            kafka_silent_s=round(silent_s, 3),
        )
        return uncached_json(health, 200 if status == "ok" else 503)

    def refused(refusal: Refusal) -> None:
        flusher.meters.refused(refusal.title)

    add_error_handlers(app, refused)
    admit_origins(app, values.page_rule(), refused)
    add_documents(app, Served(lambda: openapi.document(values)))
    # No CPU and memory: each scrape would show those of another worker.
    add_route(app, bare_registry(flusher.meters))
    return app


def read_body(environ: WSGIEnvironment, most: int) -> tuple[bytes, int]:
    """Return the request's body, and its size in bytes: of one larger than `most`, a part and a size that is larger.

    It reads the WSGI environment directly: Flask's request object costs as much CPU as a whole hello route.
    """
    length = environ.get("CONTENT_LENGTH", "")
    # One byte more than allowed is enough to see that a body without a length is too long.
    body: bytes = environ["wsgi.input"].read(min(int(length or most), most) + 1)
    return body, max(int(length or 0), len(body))
