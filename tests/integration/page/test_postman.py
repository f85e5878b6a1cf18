"""The Postman collection, run by the real newman: against a chain, and against something that is none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.postman import newman
from experiments.postman.newman import Node
from experiments.postman.requests import folders
from experiments.run.chain import Endpoints
from pipeline.errors import EmoStreamError
from tests.harness.http import Quiet, serving

# Some requests wait for two seconds, and one for a window; the fixture starts a chain.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def program() -> tuple[Node, Path]:
    """Node, and newman's script."""
    node = newman.find_node()
    try:
        return node, newman.installed(node)
    except EmoStreamError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"needs newman: {error}")


@pytest.fixture
def nonsense() -> Iterator[str]:
    """The address of a server that answers everything with 200 and the same word."""

    class Nonsense(Quiet):
        def do_GET(self) -> None:
            """Answer (http.server calls this)."""
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"yes!")

        do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET

    with serving(Nonsense) as url:
        yield url


def test_every_request_passes_on_a_chain(two_subscribers: Endpoints, program: tuple[Node, Path]) -> None:
    """All are sent, the repeated ones more than once; the reactions come back as counts."""
    found = newman.run({"ingest": two_subscribers.ingest, "registry": two_subscribers.registry}, *program)
    assert found["failures"] == []
    assert found["failed"] == 0
    assert found["requests"] >= sum(map(len, folders().values()))
    assert found["assertions"] >= 2 * found["requests"]


def test_answers_of_something_else_are_failures(
    nonsense: str, program: tuple[Node, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is always 200 does not pass; the first folder is enough to see it."""
    first = tmp_path / "first.json"
    whole = json.loads(newman.COLLECTION.read_bytes())
    first.write_text(json.dumps({**whole, "item": whole["item"][:1]}))
    monkeypatch.setattr(newman, "COLLECTION", first)
    found = newman.run({"ingest": nonsense, "registry": nonsense}, *program)
    assert found["failed"] > len(whole["item"][0]["item"])
    assert "React once: the answer is 202: expected response to have status code 202 but got 200" in found["failures"]
