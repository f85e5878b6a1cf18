"""The server of ingest: worker processes under Granian, each with its own buffer, flusher and producer."""

from __future__ import annotations

import gc
import multiprocessing.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask
from granian import Granian
from granian.constants import HTTPModes, Interfaces

from pipeline import lifecycle, logs, settings
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.file_limit import raise_file_limit
from pipeline.ingest.app import STAGE, create_app
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.sink import KafkaSink
from pipeline.metrics import workers
from pipeline.settings import Settings

log = logs.get(__name__)

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
    "registry_url",
    "registry_port",
    "origins",
    "log_level",
)
# A request holds its thread until its body has arrived. With one thread, one client that stalls in the middle of a
# body would block the worker. On a busy machine one thread alone answered a third more requests than 32 did.
ASYNC_THREADS = 16
# A durable answer holds its thread until Kafka has acknowledged, half a flush interval on average.
DURABLE_THREADS = 128
# Connections beyond these wait without an answer, so both are far above what one machine is expected to hold.
BACKLOG = 8192
BACKPRESSURE = 8192


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

    # Granian's workers end without running atexit handlers; multiprocessing's own finalizers do run.
    multiprocessing.util.Finalize(None, end, exitpriority=10)
    return create_app(values, buffer, flusher)


def serve(values: Settings, load: Callable[[Settings], Any] = worker_app) -> None:
    """Serve until SIGTERM or SIGINT; every worker flushes before it ends.

    Raises PortInUseError, or KafkaUnreachableError when no broker answers within `kafka_wait_s`.
    """
    port = lifecycle.stage_port(values.host, values.ingest_port, "ingest_port")
    bus = KafkaBus(values.kafka, values.kafka_wait_s)
    bus.ensure(topics(values).events)
    bus.close()
    # The workers are forks. A client of Kafka that one of them found among its garbage would crash it: the threads of
    # the client exist in this process only.
    gc.collect()
    gc.freeze()
    raise_file_limit()
    lifecycle.follow_parent()
    # A worker without its main process would keep the port occupied.
    os.environ.update(lifecycle.as_parent())
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
