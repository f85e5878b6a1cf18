"""Two real chains for the tests that only need one to be up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from experiments.run import chain
from experiments.run.chain import Endpoints

# Quick windows and few processes: these tests ask whether it works, not how fast it is.
SETTINGS: dict[str, object] = {"trigger_s": 2.0, "ingest_workers": 1}


@pytest.fixture(scope="session")
def chain_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """The endpoints of a chain that is measured: 2 clusters of 1 subscriber, 2-second windows."""
    with chain.started({**SETTINGS, "clusters": 2, "subscribers": 1}, tmp_path_factory.mktemp("chain")) as endpoints:
        yield endpoints


@pytest.fixture(scope="session")
def ready_file(chain_up: Endpoints) -> Path:
    """The ready file of that chain: what `attach` takes."""
    return Path(chain_up.run_dir) / "ready.json"


@pytest.fixture(scope="session")
def other_page() -> Iterator[str]:
    """The address of an empty page that is not the chain's."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer (http.server calls this)."""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Another page</title><link rel=icon href=data:,>")

        def log_message(self, *_: object) -> None:
            """Do not log requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def two_subscribers(tmp_path_factory: pytest.TempPathFactory, other_page: str) -> Iterator[Endpoints]:
    """The endpoints of a chain whose subscribers may be killed: when one dies its clients go to the other.

    It allows `other_page`.
    """
    settings = {**SETTINGS, "clusters": 1, "subscribers": 2, "origins": other_page}
    with chain.started(settings, tmp_path_factory.mktemp("two")) as endpoints:
        yield endpoints
