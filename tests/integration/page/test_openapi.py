"""The servers of a chain that is up answer as the OpenAPI documents that they serve."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import openapi_spec_validator
import pytest

from experiments.run.chain import Endpoints
from tests.harness.builders import reaction
from tests.harness.http import get_json
from tests.harness.http_api.openapi import Answer, Contract, Request
from tests.harness.http_api.werkzeug_client import HANDSHAKE
from tests.harness.waiting import DEADLINE_S

pytestmark = pytest.mark.integration

JSON = {"Content-Type": "application/json"}
EVENTS = {"Accept": "text/event-stream", "Last-Event-ID": "e:1"}
STREAMS = ("/clients/{client_id}/stream", "/clients/{client_id}/socket", "/clients/{client_id}/windows")


def send(url: str, request: Request) -> Answer:
    """Send a request over a connection of its own; return the answer, without the body of a stream."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=DEADLINE_S)) as connection:
        connection.request(request.method, request.url, request.body, dict(request.headers))
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        streams = answer.status == 101 or headers.get("content-type") == "text/event-stream"
        return Answer(answer.status, headers, b"" if streams else answer.read())


def served(url: str, stage: str) -> Contract:
    """The document that a stage serves."""
    document = get_json(f"{url}/openapi.json")
    openapi_spec_validator.validate(document)
    return Contract(document, stage)


def of_every_route(contract: Contract, origin: str) -> Iterator[Request]:
    """A request of each GET without a client, as a program and as pages send it."""
    for path, methods in contract.routes().items():
        if "GET" in methods and "{client_id}" not in path:
            plain = Request("GET", path, {"filename": "main.js"})
            yield from (plain, plain.having({"Origin": origin}), plain.having({"Origin": "http://elsewhere.example"}))


def post(path: str, body: object, **headers: str) -> Request:
    """A POST of JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", path, headers=JSON | headers, body=data)


def statuses(contract: Contract, method: str, path: str) -> set[str]:
    """The statuses that were answered so far."""
    return {status for asked, at, status, _ in contract.answered if (asked, at) == (method, path)}


def test_real_ingest_answers_as_its_document_says(two_subscribers: Endpoints, other_page: str) -> None:
    """Its server adds and changes nothing."""
    contract = served(two_subscribers.ingest, "ingest")
    for request in (
        *of_every_route(contract, other_page),
        post("/reactions", reaction()),
        post("/reactions", [reaction("ada"), reaction("alan", "❤")], Origin=other_page),
        post("/reactions", b"{"),
        post("/reactions", {}),
        post("/reactions", reaction(), **{"Content-Type": "text/plain"}),
        post("/reactions", b"\x1f\x8b", **{"Content-Encoding": "gzip"}),
        post("/reactions", [reaction("ada")] * 51),
        post("/reactions", b" " * 300_000),
        post("/reactions", reaction(), Origin="http://elsewhere.example"),
    ):
        contract.take(request, send(two_subscribers.ingest, request))
    assert statuses(contract, "POST", "/reactions") == {"202", "400", "403", "413", "415", "422"}


def test_real_registry_and_subscriber_answer_as_the_document_says(two_subscribers: Endpoints, other_page: str) -> None:
    """One client registers, streams over each transport, and leaves."""
    registry = served(two_subscribers.registry, "registry")
    url = two_subscribers.registry

    def ask(contract: Contract, at: str, request: Request) -> Answer:
        answer = send(at, request)
        contract.take(request, answer)
        return answer

    client: dict[str, Any] = json.loads(ask(registry, url, post("/clients", {"cluster": "1"})).body)
    token = {"Authorization": f"Bearer {client['token']}"}
    known = {"client_id": client["client_id"]}
    for request in (
        *of_every_route(registry, other_page),
        post("/clients", b"{"),
        post("/clients", {"client_id": "me"}),
        post("/clients", b"x" * 5000),
        post("/clients", {}, **{"Content-Type": "text/plain"}),
        post("/clients", {"cluster": "nowhere"}),
        Request("GET", "/clients", query="limit=0"),
        Request("GET", "/clients/{client_id}", known),
        Request("GET", "/clients/{client_id}", {"client_id": "nobody"}),
        Request("POST", "/clients/{client_id}/tickets", known, headers=token),
        *(Request("GET", path, known) for path in STREAMS),
        *(Request("GET", path, known, headers={**token, "Origin": other_page}) for path in STREAMS),
        Request("GET", STREAMS[1], known, headers={**token, **HANDSHAKE}),
        Request("GET", "/healthz", headers=HANDSHAKE),
    ):
        ask(registry, url, request)
    redirect = ask(registry, url, Request("GET", STREAMS[0], known, headers=token)).headers["location"]
    address = urlsplit(redirect)
    at = f"http://{address.netloc}"
    subscriber = served(at, "subscriber")
    assert subscriber.document == registry.document
    for request in (
        *of_every_route(subscriber, other_page),
        Request("GET", STREAMS[0], known, address.query),
        Request("GET", STREAMS[0], known, address.query),
        Request("GET", STREAMS[1], known, headers={**token, **HANDSHAKE}),
        Request("GET", STREAMS[1], known, headers=token),
        Request("GET", STREAMS[2], known, "after=earliest", headers=token),
        *(Request("GET", path, known, headers=HANDSHAKE if path == STREAMS[1] else {}) for path in STREAMS),
        Request("GET", STREAMS[2], known, "after=what", headers=token),
        Request("GET", STREAMS[2], {"client_id": "nobody"}, headers={**token, **EVENTS}),
    ):
        ask(subscriber, at, request)
    assert statuses(subscriber, "GET", STREAMS[0]) == {"200", "401"}
    assert statuses(subscriber, "GET", STREAMS[1]) == {"101", "401", "426"}
    assert statuses(subscriber, "GET", STREAMS[2]) == {"200", "204", "400", "401"}
    for status in (204, 404):
        assert ask(registry, url, Request("DELETE", "/clients/{client_id}", known, headers=token)).status == status
