"""The server of ingest: worker processes under Granian, each with its own buffer, flusher and producer."""

from __future__ import annotations

import gc
import multiprocessing.util
import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from pipeline import lifecycle, logs, settings
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.file_limit import raise_file_limit
from pipeline.ingest.app import STAGE, create_app
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.front import ReactionsFront
from pipeline.ingest.pulse import Pulses, kill_child
from pipeline.ingest.reactions import Reactions
from pipeline.ingest.sink import KafkaSink
from pipeline.metrics import workers
from pipeline.rate_limit import RateLimit
from pipeline.settings import Settings

log = logs.get(__name__)

OPTIONS = (
    "bootstrap_servers",
    "kafka_security_file",
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
    "run_dir",
    "disk_free_min_mb",
    "body_max_bytes",
    "array_max",
    "rate_per_user_s",
    "rate_per_address_s",
    "proxies",
    "registry_url",
    "registry_port",
    "origins",
    "host_names",
    "log_level",
)
# What Flask answers: requests of pages, health, metrics, documents. Reactions of programs need no thread.
ASYNC_THREADS = 16
# A durable answer to a page holds its thread until Kafka has acknowledged, half a flush interval on average.
DURABLE_THREADS = 128
# Connections beyond these wait without an answer, so both are far above what one machine is expected to hold.
BACKLOG = 8192
BACKPRESSURE = 8192


# The records of a body have more bytes than the body. One that was allowed must fit into an empty buffer.
RECORDS_PER_BODY = 4


class Shared(NamedTuple):
    """What the workers have in common, in memory that they inherit: the limits of senders, and their pulses."""

    limit: RateLimit
    address_limit: RateLimit
    pulses: Pulses


def worker_app(values: Settings, shared: Shared) -> ReactionsFront:
    """Return the app of one worker process, with its own buffer, flusher and producer."""
    logs.configure(STAGE, values.log_level)
    lifecycle.follow_parent()
    # One that hangs before its event loop runs is missed too.
    shared.pulses.beat()
    workers.join()
    buffer = Buffer(
        values.buffer_max,
        wake_at=values.flush_batch if values.flush_ms else 1,
        least_bytes=RECORDS_PER_BODY * values.body_max_bytes,
    )
    flusher = Flusher(
        buffer,
        lambda: KafkaSink(values.kafka, topics(values).events.name),
        flush_ms=values.flush_ms,
        lead_ms=values.flush_lead_ms,
        aligned=values.flush_phase == "aligned",
        disk=partial(disk_full, embedded_folder(values), values.disk_free_min_mb),
    )
    flusher.start()

    def end() -> None:
        left = flusher.close()
        log.info("ended", accepted=buffer.accepted, given_up=left)

    # Granian's workers end without running atexit handlers; multiprocessing's own finalizers do run.
    multiprocessing.util.Finalize(None, end, exitpriority=10)
    reactions = Reactions(values, buffer, flusher, limit=shared.limit, address_limit=shared.address_limit)
    threads = values.ingest_threads or (DURABLE_THREADS if reactions.durable else ASYNC_THREADS)
    return ReactionsFront(create_app(reactions), reactions, threads, shared.pulses)


def embedded_folder(values: Settings) -> Path | None:
    """Return the data directory of an embedded Kafka, if the reactions go to that one.

    One of an earlier run may be there, while another Kafka is used now.
    """
    folder = Path(values.run_dir, "kafka")
    try:
        listeners = (folder / "server.properties").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    servers = values.kafka.replace("localhost:", "127.0.0.1:").split(",")
    return folder if any(f"advertised.listeners=CLIENT://{server}\n" in listeners for server in servers) else None


def disk_full(folder: Path | None, least_mb: int) -> str:
    """Return why the disk of `folder` takes no more reactions; "" if it does, or without a folder.

    Kafka ends when it cannot write, and what other programs need of the disk is not known.
    """
    if not least_mb or folder is None:
        return ""
    try:
        free_mb = shutil.disk_usage(folder).free >> 20
    except OSError:
        return ""
    if free_mb >= least_mb:
        return ""
    return f"the disk of {folder} has {free_mb} MB free, and {least_mb} MB (disk_free_min_mb) have to be: make room"


def serve(values: Settings, load: Callable[[Settings, Shared], Any] = worker_app) -> None:
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
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        workers=values.ingest_workers,
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        respawn_failed_workers=True,
        workers_kill_timeout=15,
        log_enabled=False,
        websockets=False,
    )
    shared = Shared(RateLimit(values.rate_per_user_s), RateLimit(values.rate_per_address_s), Pulses())
    ended = threading.Event()
    threading.Thread(target=shared.pulses.watch, args=(ended, kill_child), name="pulses", daemon=True).start()
    try:
        with workers.together():
            server.serve(target_loader=partial(load, values, shared), wrap_loader=False)
    finally:
        ended.set()


def main() -> None:
    """`python -m pipeline.ingest`."""
    values = settings.main("pipeline.ingest", "Accept reactions over HTTP and send them to Kafka.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("pipeline.ingest", lambda: serve(values))
