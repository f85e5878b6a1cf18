"""The server of the registry: one worker process under Granian, with its followers and its page."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.util import Finalize
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from pipeline import lifecycle, logs, settings
from pipeline.bus.kafka import KafkaBus
from pipeline.errors import EmoStreamError
from pipeline.file_limit import raise_file_limit
from pipeline.front import Front
from pipeline.hosts import base_url
from pipeline.registry.app import BODY_MAX_BYTES, create_app
from pipeline.registry.registrations import Registrations
from pipeline.registry.web.observer import Observer
from pipeline.registry.web.views import create_pages

STAGE = "registry"
OPTIONS = (
    "bootstrap_servers", "kafka_security_file", "kafka_wait_s", "topic_prefix", "host",
    "registry_port", "registry_url", "silent_s",
    "moves_per_s", "clients_max", "client_idle_s", "registrations_per_address_min", "proxies", "origins", "host_names",
    "ingest_url", "ingest_port", "trigger_s", "group_size", "log_level",
)  # fmt: skip

# A registration holds its thread until Kafka has the record.
THREADS = 64
# The server's own default is 1,024: as many silent connections kept everyone else waiting. With HTTP/1 only, each is
# closed after 30 s.
CONNECTIONS = 8192
KILL_S = 2


def load_app(values: settings.Settings, port: int) -> Front:
    """Return the application of Granian's worker process; it is closed when the worker ends."""
    lifecycle.follow_parent()
    logs.configure(STAGE, values.log_level)

    def failed(_error: BaseException) -> None:
        # The main process sees that its worker has ended and ends with an error; the supervisor then restarts it.
        os.kill(os.getpid(), signal.SIGTERM)

    bus, observer_bus = (KafkaBus(values.kafka, values.kafka_wait_s) for _ in range(2))
    try:
        registrations = Registrations(bus, values, failed)
        observer = Observer(observer_bus, values, failed)
    except EmoStreamError as error:
        sys.exit(f"pipeline.registry: {error}")

    def close() -> None:
        observer.close()
        registrations.close()
        observer_bus.close()
        bus.close()

    # A multiprocessing worker runs finalizers and no atexit functions.
    Finalize(None, close, exitpriority=10)
    threading.Thread(target=registrations.run_ticks, name="ticks", daemon=True).start()
    logs.get(__name__).info("serving", clients=len(registrations.assignments), port=port)
    url = base_url(values.registry_url, values.host, port)
    origins = values.page_rule(port)
    app = create_app(registrations, url, origins, values.registrations_per_address_min)
    app.register_blueprint(create_pages(registrations, observer, values))
    return Front(
        app,
        origins,
        threads=THREADS,
        body_max_bytes=BODY_MAX_BYTES,
        refused=registrations.meters.refused,
        proxies=values.proxies,
    )


def run(values: settings.Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises PortInUseError."""
    port = lifecycle.stage_port(values.host, values.registry_port, "registry_port")
    raise_file_limit()
    lifecycle.follow_parent()
    # A worker without its main process would keep the port occupied.
    os.environ.update(lifecycle.as_parent())
    server = Granian(
        "pipeline.registry",
        address=values.host,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        workers=1,
        backlog=CONNECTIONS,
        backpressure=CONNECTIONS,
        workers_kill_timeout=KILL_S,
        log_enabled=False,
        websockets=False,
    )
    load: Callable[[], Any] = partial(load_app, values, port)
    server.serve(target_loader=load, wrap_loader=False)


def main() -> None:
    """`python -m pipeline.registry`."""
    values = settings.main("pipeline.registry", "Register clients and redirect each to its subscriber.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("pipeline.registry", lambda: run(values))
