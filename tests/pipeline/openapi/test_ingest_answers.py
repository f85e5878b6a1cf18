"""Ingest answers what its document lists, and everything that it lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flask.testing import FlaskClient

from pipeline import front
from pipeline.flask_answers import FAILED
from pipeline.ingest.app import create_app
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.reactions import Reactions
from pipeline.openapi import ingest
from pipeline.settings import Settings
from tests.harness.builders import reaction
from tests.harness.http_api.openapi import Contract, Request
from tests.harness.http_api.werkzeug_client import HANDSHAKE, check_every_path, send
from tests.harness.stages.doubles import MemorySink
from tests.harness.waiting import until

PAGE = {"Origin": "http://localhost:3000"}
STRANGE = {"Host": "elsewhere.example"}
FOREIGN = {"Origin": "http://elsewhere.example"}
JSON = {"Content-Type": "application/json"}
VALUES = Settings().replace(origins=PAGE["Origin"], flush_ms=60_000)


@contextmanager
def serving(held: bool = False, refusal: str = "", **changes: Any) -> Iterator[tuple[FlaskClient, Flusher]]:
    """Serve ingest; if `held`, Kafka acknowledges nothing, with a `refusal` it takes nothing. Yield client, flusher."""
    values = VALUES.replace(**changes)
    sink = MemorySink(held, refusal)
    buffer = Buffer(values.buffer_max, wake_at=1)
    flusher = Flusher(buffer, lambda: sink, flush_ms=values.flush_ms, lead_ms=50, aligned=True, clock_ns=lambda: 0)
    flusher.start()
    try:
        yield create_app(Reactions(values, buffer, flusher, clock_ns=lambda: 1)).test_client(), flusher
    finally:
        sink.release()
        flusher.close()


def post(body: object, **headers: str) -> Request:
    """A request to /reactions."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", "/reactions", headers=JSON | headers, body=data)


def test_ingest_answers_all_that_is_documented_and_nothing_else() -> None:
    """Every status and kind of problem of every route, with its headers; answers are as their schemas say."""
    contract = Contract(ingest.document(VALUES), "ingest")
    with ExitStack() as stack:

        def ask(client: FlaskClient, *requests: Request) -> None:
            for request in requests:
                contract.take(request, send(client, request))
                contract.take(request.having(STRANGE), send(client, request.having(STRANGE)))
                if "Origin" not in request.headers:
                    contract.take(request.having(PAGE), send(client, request.having(PAGE)))

        client, _ = stack.enter_context(serving())
        for path in ("/healthz", "/metrics", "/openapi.json", "/docs"):
            ask(client, *(Request("GET", path, headers=headers) for headers in ({}, FOREIGN, HANDSHAKE)))
        ask(client, Request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}))
        ask(
            client,
            post(reaction()),
            post([reaction("ada"), reaction("alan", "❤")]),
            post(b"{"),
            post("not an object"),
            post([reaction("ada", "x"), {}, 7]),
            post(reaction(), **{"Content-Type": "text/plain"}),
            post(b"\x1f\x8b", **{"Content-Encoding": "gzip"}),
            post([reaction("ada")] * 51),
            post([reaction(f"fan-{number}") for number in range(VALUES.array_max + 1)]),
            post(b" " * (VALUES.body_max_bytes + 1)),
            post(reaction(), **FOREIGN),
            post(reaction(), **HANDSHAKE),
        )
        limited, _ = stack.enter_context(serving(rate_per_user_s=1))
        send(limited, post(reaction()))
        ask(limited, post(reaction()))
        full, _ = stack.enter_context(serving(held=True, buffer_max=1, array_max=1))
        send(full, post(reaction()))
        ask(full, post(reaction()))
        out, flusher = stack.enter_context(serving(held=True, flush_ms=0, kafka_out_s=0.01))
        send(out, post(reaction()))
        until(lambda: flusher.silent_s() > 0.01, "Kafka is out of reach")
        ask(out, post(reaction()), Request("GET", "/healthz"))
        durable, _ = stack.enter_context(serving(held=True, ack="durable", flush_ms=0, kafka_out_s=0.01))
        ask(durable, post(reaction()))
        refused, _ = stack.enter_context(serving(refusal="no right", ack="durable", flush_ms=0))
        ask(refused, post(reaction()), Request("GET", "/healthz"))
        full_disk, flusher = stack.enter_context(serving())
        flusher.disk_full = "no room"
        ask(full_disk, post(reaction()), Request("GET", "/healthz"))
        for refusal in (front.body_too_slow(), front.too_many_unfinished("192.0.2.1")):
            client.environ_base[FAILED] = refusal
            ask(client, post(reaction()))
    assert contract.unanswered() == []
    assert contract.absent_headers() == []


def test_every_path_of_ingest_takes_head_and_preflights_and_names_its_methods() -> None:
    """As `x-every-path` says."""
    with serving() as (client, _):
        check_every_path(client, Contract(ingest.document(VALUES), "ingest"), PAGE, FOREIGN)
