"""A server of `/metrics` and `/healthz`, for a stage without a server of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from pipeline import lifecycle, logs
from pipeline.hosts import base_url
from pipeline.metrics.exposition import PATH, expose
from pipeline.problems import BLANK, CONTENT_TYPE, Refusal

log = logs.get(__name__)

Health = Callable[[], dict[str, object]]
"""Returns the answer of `/healthz`; the HTTP status is 200 if its `status` is `ok`, 503 otherwise."""


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry = registry
        self.health = health
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a failed request, for instance of a client that disconnected; other requests go on."""
        log.warning("a request for metrics failed", client=str(client_address), exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # A client that connects and sends nothing holds a thread for this long, seconds.
    timeout = 10.0

    def do_GET(self) -> None:
        """Answer (http.server calls this)."""
        path = self.path.partition("?")[0]
        if path == PATH:
            self._answer(200, *expose(self.server.registry, self.headers.get("Accept", "")))
        elif path == "/healthz":
            health = self.server.health()
            self._answer(200 if health["status"] == "ok" else 503, msgspec.json.encode(health), "application/json")
        else:
            self.send_error(404)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with a problem document (http.server calls this for a request that it cannot handle)."""
        seen = ascii(self.requestline[:200])
        refusal = Refusal(
            code,
            HTTPStatus(code).phrase,
            f"{seen} is not served by this stage: use GET {PATH} or GET /healthz",
            problem_type=BLANK,
        )
        self._answer(code, refusal.body(), CONTENT_TYPE)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
        """Do not log requests: a scrape is not an event."""

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(host: str, port: int, registry: CollectorRegistry, health: Health) -> Iterator[str]:
    """Serve `registry` and `health` from a thread while the body runs; yield the URL, http://host:port.

    Raises PortInUseError.
    """
    port = lifecycle.claim_port(host, port, "metrics_port")
    url = base_url("", host, port)
    with _Server(host, port, registry, health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        thread.start()
        log.info("serving metrics", url=url + PATH)
        try:
            yield url
        finally:
            server.shutdown()
            thread.join()
