"""Ingest's WSGI application: `POST /reactions`, its health and metrics, and its OpenAPI document."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Literal

from flask import Flask, Response, request

from pipeline.errors import BufferFullError
from pipeline.flask_answers import add_documents, add_error_handlers, admit_origins, uncached_json
from pipeline.http_messages import IngestHealth
from pipeline.ingest import intake
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.metrics.exposition import bare_registry
from pipeline.metrics.flask_route import add_route
from pipeline.openapi import ingest as openapi
from pipeline.openapi.page import Served
from pipeline.origins import Origins
from pipeline.problems import Refusal
from pipeline.rate_limit import RateLimit
from pipeline.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

STAGE: Literal["ingest"] = "ingest"
JSON = "application/json"
# A body that is too large is read and dropped up to this size.
DROPPED_MAX_BYTES = 4 << 20
BUFFER_RETRY_AFTER = {"Retry-After": "1"}
KAFKA_RETRY_AFTER = {"Retry-After": "5"}


def create_app(values: Settings, buffer: Buffer, flusher: Flusher, clock_ns: Callable[[], int] = time.time_ns) -> Flask:
    """Return the WSGI application over a buffer and the flusher that empties it."""
    app = Flask(__name__, static_folder=None)
    limit = RateLimit(values.rate_per_user_s)
    durable = values.ack == "durable"
    # A durable answer waits for the next flush and for Kafka's acknowledgement. After this time Kafka is out of reach.
    durable_wait_s = values.flush_ms / 1000 + values.kafka_out_s

    @app.post("/reactions")
    def post_reactions() -> Response:
        environ = request.environ
        reactions = intake.read(read_body(environ, values.body_max_bytes), values.array_max, environ)
        intake.check_rate(reactions, limit, clock_ns())
        if (silent_s := flusher.silent_s()) > values.kafka_out_s:
            raise Refusal(
                503,
                "Kafka is out of reach",
                f"Kafka has acknowledged nothing for {silent_s:.0f} s (kafka_out_s={values.kafka_out_s:g}); "
                "the reactions accepted before are kept: try again later",
                headers=KAFKA_RETRY_AFTER,
            )
        if reason := flusher.refuses():
            raise Refusal(
                503,
                "Kafka refuses reactions",
                f"Kafka refused a reaction of the last flush permanently ({reason}), so nothing was accepted: check "
                "the topic and this stage's rights, then try again",
                headers=KAFKA_RETRY_AFTER,
            )
        records = intake.records(reactions, clock_ns())
        try:
            flushed = buffer.add(records)
        except BufferFullError as error:
            raise Refusal(503, "Buffer full", str(error), headers=BUFFER_RETRY_AFTER) from error
        if durable:
            try:
                refused = flushed.result(durable_wait_s)
            except FutureTimeout as error:
                raise Refusal(
                    503,
                    "Kafka did not acknowledge",
                    f"no acknowledgement within {durable_wait_s:g} s; the reactions are kept and sent when Kafka "
                    "answers, so sending them again may count them twice",
                    headers=KAFKA_RETRY_AFTER,
                ) from error
            if reasons := [refused[record] for record in records if record in refused]:
                counted = len(records) - len(reasons)
                again = f"; {counted} others are counted, and would be twice if they were sent again" if counted else ""
                raise Refusal(
                    503,
                    "Kafka refuses reactions",
                    f"Kafka refused {len(reasons)} of {len(records)} reactions permanently ({reasons[0]}){again}: "
                    "check the topic and this stage's rights, then try again",
                    headers=KAFKA_RETRY_AFTER,
                )
        return Response(b'{"accepted":%d}' % len(reactions), 202, content_type=JSON)

    @app.get("/healthz")
    def healthz() -> Response:
        silent_s = flusher.silent_s()
        silent, refusal = silent_s > values.kafka_out_s, flusher.refusal
        status = "Kafka is out of reach" if silent else "Kafka refuses reactions" if refusal else "ok"
        health = IngestHealth(
            stage=STAGE,
            status=status,
            pid=os.getpid(),
            accepted=buffer.accepted,
            waiting=len(buffer),
            kafka_silent_s=round(silent_s, 3),
        )
        return uncached_json(health, 503 if silent or refusal else 200)

    def refused(refusal: Refusal) -> None:
        flusher.meters.refused(refusal.title)

    add_error_handlers(app, refused)
    admit_origins(app, Origins(values.origins, values.registry_url, values.registry_port), refused)
    add_documents(app, Served(lambda: openapi.document(values)))
    # No CPU and memory: each scrape would show those of another worker.
    add_route(app, bare_registry(flusher.meters))
    return app


def read_body(environ: WSGIEnvironment, body_max_bytes: int) -> bytes:
    """Return the request's body; raise Refusal 415 or 413.

    It reads the WSGI environment directly: Flask's request object costs as much CPU as a whole hello route.
    """
    content_type = environ.get("CONTENT_TYPE", "")
    if content_type != JSON and content_type.partition(";")[0].strip().lower() != JSON:
        raise Refusal(
            415,
            "Not application/json",
            f"Content-Type is {content_type!r}: send Content-Type: application/json",
        )
    length = environ.get("CONTENT_LENGTH", "")
    # One byte more than allowed is enough to see that a body without a length is too long.
    size = int(length) if length.isdecimal() else body_max_bytes + 1
    if size <= body_max_bytes or not length:
        body: bytes = environ["wsgi.input"].read(size)
        if len(body) <= body_max_bytes:
            return body
    elif size <= DROPPED_MAX_BYTES:
        # The server closes a connection whose body is not read, and the client may then not see the answer.
        environ["wsgi.input"].read(size)
    raise Refusal(413, "Body too large", f"the body is larger than {body_max_bytes} bytes (body_max_bytes): split it")
