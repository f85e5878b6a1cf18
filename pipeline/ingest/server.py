"""Ingest: `POST /reactions` validates and appends to a buffer; a background thread flushes it to Kafka."""

from __future__ import annotations

import multiprocessing.util
import os
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from werkzeug.exceptions import HTTPException

from pipeline import lifecycle, logs, settings
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import BufferFullError
from pipeline.ingest import intake
from pipeline.ingest.buffer import Buffer, Flusher
from pipeline.ingest.intake import Refusal
from pipeline.ingest.sink import KafkaSink
from pipeline.metrics import workers
from pipeline.metrics.exposition import bare_registry
from pipeline.metrics.flask_route import add_route
from pipeline.origins import same_host
from pipeline.problems import problem
from pipeline.rate_limit import RateLimit
from pipeline.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logs.get(__name__)

STAGE = "ingest"
JSON = "application/json"
OPTIONS = (
    "bootstrap_servers",
    "kafka_wait_s",
    "topic_prefix",
    "partitions",
    "host",
    "ingest_port",
    "ingest_workers",
    "ingest_threads",
    "ack",
    "flush_ms",
    "flush_phase",
    "flush_lead_ms",
    "flush_batch",
    "buffer_max",
    "kafka_out_s",
    "body_max_bytes",
    "array_max",
    "rate_per_user_s",
    "log_level",
)
# A request holds its thread until its body has come: with one thread, one client that stalls in the middle of a body
# would stop the worker. On a busy machine one thread alone answered a third more than 32 did.
ASYNC_THREADS = 16
# A durable answer holds its thread until Kafka has acknowledged, half a flush interval on average.
DURABLE_THREADS = 128
# What lets the registry's page send reactions from another port of this host.
CORS = {
    "Vary": "Origin",
    "Access-Control-Allow-Headers": "Content-Type",
    "Access-Control-Expose-Headers": "Retry-After",
    "Access-Control-Max-Age": "600",
}
# Connections beyond these would wait silently, so both lie far above what one machine is asked to hold.
BACKLOG = 8192
BACKPRESSURE = 8192


def create_app(values: Settings, buffer: Buffer, flusher: Flusher, clock_ns: Callable[[], int] = time.time_ns) -> Flask:
    """Return the WSGI application over a buffer and the flusher that empties it."""
    app = Flask(__name__)
    limit = RateLimit(values.rate_per_user_s)
    durable = values.ack == "durable"
    # What is acknowledged waits one flush and one answer of Kafka; beyond this Kafka is out of reach.
    durable_wait_s = values.flush_ms / 1000 + values.kafka_out_s

    @app.post("/reactions")
    def post_reactions() -> Response:
        reactions = intake.read(_body(request.environ, values.body_max_bytes), values.array_max)
        intake.check_rate(reactions, limit, clock_ns())
        if (silent_s := flusher.silent_s()) > values.kafka_out_s:
            raise Refusal(
                503,
                "Kafka is out of reach",
                f"Kafka has acknowledged nothing for {silent_s:.0f} s (kafka_out_s={values.kafka_out_s:g}); "
                "what was accepted before is kept: try again later",
                retry_after_s=5,
            )
        flushed = buffer.add(intake.records(reactions, clock_ns()))
        if durable:
            try:
                flushed.result(durable_wait_s)
            except FutureTimeout as error:
                raise Refusal(
                    503,
                    "Kafka did not acknowledge",
                    f"no acknowledgement within {durable_wait_s:g} s; the reactions are kept and sent when Kafka "
                    "answers, so sending them again may count them twice",
                    retry_after_s=5,
                ) from error
        return Response(b'{"accepted":%d}' % len(reactions), 202, content_type=JSON)

    @app.get("/healthz")
    def healthz() -> tuple[dict[str, Any], int]:
        silent_s = flusher.silent_s()
        healthy = silent_s <= values.kafka_out_s
        return {
            "stage": STAGE,
            "status": "ok" if healthy else "Kafka is out of reach",
            "pid": os.getpid(),
            "accepted": buffer.accepted,
            "waiting": len(buffer),
            "kafka_silent_s": round(silent_s, 3),
        }, 200 if healthy else 503

    @app.errorhandler(Refusal)
    def refused(refusal: Refusal) -> Response:
        flusher.meters.refused(refusal.title)
        extra = {} if refusal.errors is None else {"errors": refusal.errors}
        body, content_type = problem(refusal.status, refusal.title, refusal.detail, **extra)
        response = Response(body, refusal.status, content_type=content_type)
        if refusal.retry_after_s:
            response.headers["Retry-After"] = str(refusal.retry_after_s)
        return response

    @app.errorhandler(BufferFullError)
    def full(error: BufferFullError) -> Response:
        return refused(Refusal(503, "Buffer full", str(error), retry_after_s=1))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return refused(Refusal(error.code or 500, error.name, error.description or error.name))

    # CPU and memory of one worker of several, now this and now that one, would be misleading.
    add_route(app, bare_registry(flusher.meters))

    @app.after_request
    def admit_page(response: Response) -> Response:
        origin = request.environ.get("HTTP_ORIGIN")
        if origin and same_host(origin, request.environ.get("HTTP_HOST", "")):
            response.headers.update({**CORS, "Access-Control-Allow-Origin": origin})
        return response

    return app


def _body(environ: WSGIEnvironment, body_max_bytes: int) -> bytes:
    """Return the request's body; raise Refusal 415 or 413.

    Straight from the WSGI environment: going by way of Flask's request costs as much again as a whole hello route.
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
    raise Refusal(413, "Body too large", f"the body is larger than {body_max_bytes} bytes (body_max_bytes): split it")


def worker_app(values: Settings) -> Flask:
    """Return the app of one worker process, with its own buffer, flusher and producer."""
    logs.configure(STAGE, values.log_level)
    lifecycle.follow_parent()
    workers.join()
    buffer = Buffer(values.buffer_max, wake_at=values.flush_batch if values.flush_ms else 1)
    flusher = Flusher(
        buffer,
        lambda: KafkaSink(values.kafka, topics(values).events.name, queue_max=values.buffer_max),
        flush_ms=values.flush_ms,
        lead_ms=values.flush_lead_ms,
        aligned=values.flush_phase == "aligned",
    )
    flusher.start()

    def end() -> None:
        left = flusher.close()
        log.info("ended", accepted=buffer.accepted, given_up=left)

    # A server's worker ends without running atexit handlers; multiprocessing's own finalizers do run.
    multiprocessing.util.Finalize(None, end, exitpriority=10)
    return create_app(values, buffer, flusher)


def serve(values: Settings, load: Callable[[Settings], Any] = worker_app) -> None:
    """Serve until SIGTERM or SIGINT; every worker flushes before it ends.

    Raises PortInUseError, or KafkaUnreachableError when no broker answers within `kafka_wait_s`.
    """
    port = lifecycle.claim_port(values.host, values.ingest_port, "ingest_port")
    bus = KafkaBus(values.kafka, values.kafka_wait_s)
    bus.ensure(topics(values).events)
    bus.close()
    lifecycle.follow_parent()
    log.info("serving", url=f"http://{values.host}:{port}", workers=values.ingest_workers, ack=values.ack)
    server = Granian(
        "pipeline.ingest",
        address=values.host,
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        workers=values.ingest_workers,
        blocking_threads=values.ingest_threads or (DURABLE_THREADS if values.ack == "durable" else ASYNC_THREADS),
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        respawn_failed_workers=True,
        workers_kill_timeout=15,
        log_enabled=False,
        websockets=False,
    )
    with workers.together():
        server.serve(target_loader=partial(load, values), wrap_loader=False)


def main() -> None:
    """`python -m pipeline.ingest`."""
    values = settings.main("pipeline.ingest", "Accept reactions over HTTP and send them to Kafka.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("pipeline.ingest", lambda: serve(values))
