"""Requests to a stage that runs, and servers that stand for one, by the standard library alone."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.harness.waiting import DEADLINE_S


class Quiet(BaseHTTPRequestHandler):
    """Answers requests, and logs none."""

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@contextmanager
def serving(handler: type[Quiet]) -> Iterator[str]:
    """Serve with `handler` on a free port; yield the address. However the block ends, so does the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def get_json(url: str) -> Any:
    """GET a URL; return the JSON of its answer."""
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def post_json(url: str, body: object) -> Any:
    """POST a body; return the JSON of the answer."""
    with urllib.request.urlopen(_post(url, body), timeout=DEADLINE_S) as answer:
        return json.load(answer)


def post_status(url: str, body: object) -> int:
    """POST a body; return the status of the answer, whatever it is."""
    try:
        with urllib.request.urlopen(_post(url, body), timeout=DEADLINE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def _post(url: str, body: object) -> urllib.request.Request:
    """A POST of JSON: bytes are sent as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return urllib.request.Request(url, data, {"Content-Type": "application/json"})


def is_healthy(url: str) -> bool:
    """Whether /healthz of a stage answers with 200."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2):
            return True
    except OSError:
        return False


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Redirects are followed by hand, with the token."""


def redirect_of(client: dict[str, Any]) -> str:
    """Where a registered client's `stream_url` leads: the address of its stream at a subscriber."""
    request = urllib.request.Request(client["stream_url"], headers={"Authorization": f"Bearer {client['token']}"})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.build_opener(_StayHere).open(request, timeout=DEADLINE_S)
    with raised.value as redirect:
        assert redirect.code == 307
        return str(redirect.headers["Location"])
