"""Requests of a contract through the test client of a Flask application."""

from __future__ import annotations

from flask.testing import FlaskClient

from pipeline.origins import PREFLIGHT
from tests.harness.http_api.openapi import Answer, Contract, Request

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def send(client: FlaskClient, request: Request) -> Answer:
    """Send a request; return the answer."""
    answer = client.open(
        request.url, method=request.method, headers=dict(request.headers), data=request.body, buffered=True
    )
    return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers}, answer.data)


def check_every_path(client: FlaskClient, contract: Contract, page: dict[str, str], foreign: dict[str, str]) -> None:
    """Check what every path of a Flask application answers beside its operations."""
    for template, methods in contract.routes().items():
        path = template.format(client_id="x", filename="main.js")
        allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        options = send(client, Request("OPTIONS", path))
        assert (options.status, set(options.headers["allow"].split(", "))) == (200, allowed), path
        preflight = send(client, Request("OPTIONS", path, headers=page))
        assert (preflight.status, preflight.body) == (204, b""), path
        assert {name: preflight.headers[name.lower()] for name in PREFLIGHT} == PREFLIGHT
        if not path.startswith("/page/"):
            assert send(client, Request("OPTIONS", path, headers=foreign)).status == 403
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
            answer = send(client, Request(method, path))
            contract.check_refused(answer, 405)
            assert set(answer.headers["allow"].split(", ")) == allowed, path
        if "GET" in methods:
            head, get = send(client, Request("HEAD", path)), send(client, Request("GET", path))
            assert (head.status, head.body) == (get.status, b""), path
    for unknown in ("/unknown", "/clients//stream", "/clients/x/y/z"):
        assert "use " in contract.check_refused(send(client, Request("GET", unknown)), 404)["detail"]
