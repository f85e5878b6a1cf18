"""Requests to the chain's own addresses."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.harness.processes import run_to_end


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own name
        """Log nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that answers 200."""
    with HTTPServer(("127.0.0.1", 0), _Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


ASK = "import sys; from pipeline import direct_http; print(direct_http.get(sys.argv[1], 20.0).status)"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_is_asked(port: int, name: str) -> None:
    """Where nothing listens at the proxy's address, the answer is there all the same."""
    environment = {name: "http://127.0.0.1:9", "no_proxy": "example.org"}
    ended = run_to_end([sys.executable, "-c", ASK, f"http://127.0.0.1:{port}/"], **environment)
    assert (ended.stdout, ended.stderr) == ("200\n", "")
