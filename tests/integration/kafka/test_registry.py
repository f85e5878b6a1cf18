"""The registry as a process over a real Kafka: slow bodies, and requests that no client should send."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from experiments.load import slow
from pipeline import lifecycle
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.settings import Settings, to_env
from tests.harness.http import is_healthy
from tests.harness.processes import module, running
from tests.harness.waiting import DEADLINE_S, until

pytestmark = pytest.mark.integration


@contextmanager
def serving(broker: EmbeddedKafka, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the registry on topics of its own, its log in `folder`; yield its port and process."""
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"registry-{uuid.uuid4().hex}-",
        registry_port=lifecycle.claim_port("127.0.0.1", 0, "registry_port"),
    )
    log = folder / "log"
    with (
        log.open("wb") as written,
        running(module("pipeline.registry"), env={**os.environ, **to_env(settings)}, stderr=written) as process,
    ):
        url = f"http://127.0.0.1:{settings.registry_port}"
        until(lambda: process.poll() is not None or is_healthy(url), "the registry answers, or has ended")
        assert process.poll() is None, log.read_text()
        yield settings.registry_port, process


def first_line(port: int, request: bytes) -> bytes:
    """Send bytes, and return the first line of the answer."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n" not in received:
            data = connection.recv(4096)
            assert data, received
            received += data
    return received.partition(b"\r\n")[0]


def test_slow_bodies_hold_nobody_and_get_408(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """More of them than the registry has threads; the deadline is that of the server itself."""
    with serving(broker, tmp_path) as (port, _), slow.held(f"http://127.0.0.1:{port}", 200, 200, path="/clients"):
        for _ in range(5):
            assert first_line(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == b"HTTP/1.1 200 OK"
            assert first_line(port, b"POST /clients HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        assert first_line(port, (slow.HEAD % "/clients").encode()) == b"HTTP/1.1 408 Request Timeout"
        assert first_line(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(("of_worker", "status"), [(False, 0), (True, 1)])
def test_registry_ends_as_asked_and_with_an_error_if_its_worker_ends(
    broker: EmbeddedKafka, tmp_path: Path, of_worker: bool, status: int
) -> None:
    """The worker ends itself when it cannot follow its topics: the supervisor has to see that."""
    with serving(broker, tmp_path) as (_, process):
        ended = psutil.Process(process.pid).children()[-1] if of_worker else process
        ended.terminate()
        assert process.wait(DEADLINE_S) == status


HANDSHAKE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /clients/%ff", b"GET /clients/\xc3\xa9", b"GET /clients?after=%ff", b"GET /clients?after=\xc3\xa9",
        b"GET /clients?after=%F0%9F%98%82", b"HEAD /", b"OPTIONS /clients", b"PUT /clients", b"DELETE /clients/x",
        b"GET http://x/clusters",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "headers",
    [
        b"", b"Cookie: a=\xff\r\n", b"Authorization: Bearer \xc3\xa9\r\n", b"X-Forwarded-For: \xff\r\n",
        b"Origin: \xff\r\n", HANDSHAKE,
    ],
)  # fmt: skip
def test_odd_request_is_answered_without_an_error_of_the_server(port: int, request_line: bytes, headers: bytes) -> None:
    """Text that is not ASCII or not UTF-8, in the path, the query and headers."""
    line = first_line(port, request_line + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
    assert line.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3", b"HTTP/1.1 4")), line


@pytest.fixture(scope="module")
def port(broker: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a registry."""
    with serving(broker, tmp_path_factory.mktemp("registry")) as (port, process):
        yield port
        assert process.poll() is None
