"""The registry answers what the document lists of it, and everything that it lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient

from pipeline import front
from pipeline.bus.base import Writer
from pipeline.bus.memory import MemoryBus
from pipeline.errors import KafkaUnreachableError
from pipeline.flask_answers import FAILED
from pipeline.messages import encode
from pipeline.openapi import delivery
from pipeline.origins import Origins
from pipeline.registry.app import create_app
from pipeline.registry.registrations import Registrations
from pipeline.registry.web.observer import Observer
from pipeline.registry.web.views import create_pages
from pipeline.settings import Settings
from tests.harness.builders import NAMES, announcement, window
from tests.harness.http_api.openapi import Contract, Request
from tests.harness.http_api.werkzeug_client import HANDSHAKE, check_every_path, send
from tests.harness.stages.doubles import Clock
from tests.harness.waiting import until

URL = "http://registry"
PAGE = {"Origin": "http://localhost:3000"}
STRANGE = {"Host": "elsewhere.example"}
FOREIGN = {"Origin": "http://elsewhere.example"}
JSON = {"Content-Type": "application/json"}
EVENTS = {"Accept": "text/event-stream"}
VALUES = Settings().replace(origins=PAGE["Origin"])
STREAMS = ("stream", "socket", "windows")
STATIC = ("/", "/ops", "/page/{filename}")


class SilentBus(MemoryBus):
    """A bus whose Kafka answers no writer while it is `silent`."""

    silent = False

    def writer(self) -> Writer:  # type: ignore[override]
        """A writer that fails while the bus is silent."""
        return SilentWriter(self, super().writer())


class SilentWriter:
    """A writer of a SilentBus."""

    def __init__(self, bus: SilentBus, writer: Writer) -> None:
        self._bus = bus
        self._writer = writer
        self.close = writer.close

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Send a record, or fail."""
        self._check()
        self._writer.send(topic, value, key)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Flush, or fail."""
        self._check()
        self._writer.flush(timeout_s)

    def _check(self) -> None:
        if self._bus.silent:
            raise KafkaUnreachableError("Kafka does not answer: start it")


class Registry:
    """A registry with its pages and one subscriber, 1/a."""

    def __init__(self, **changes: object) -> None:
        self.bus, self.clock = SilentBus(), Clock()
        values = VALUES.replace(**changes)
        self.registrations = Registrations(self.bus, values, pytest.fail, self.clock)
        self.observer = Observer(self.bus, values, pytest.fail, self.clock, sample_s=0.01)
        app = create_app(
            self.registrations, URL, Origins(values.origins, "", 8080), values.registrations_per_address_min
        )
        app.register_blueprint(create_pages(self.registrations, self.observer, values))
        self.http: FlaskClient = app.test_client(use_cookies=False)
        self.announce()

    def announce(self) -> None:
        """Announce the subscriber now."""
        made = announcement("1", "a", announced_ns=self.clock(), last_event_id="e:7")
        self.bus.writer().send(NAMES.subscribers.name, encode(made), b"1/a")
        until(lambda: made in list(self.registrations.assignments.subscribers()), "the registry has read it")

    def close(self) -> None:
        """Stop the threads."""
        self.observer.close()
        self.registrations.close()


@contextmanager
def serving(**changes: object) -> Iterator[Registry]:
    """Serve a registry with changed settings."""
    registry = Registry(**changes)
    try:
        yield registry
    finally:
        registry.bus.silent = False
        registry.close()


def bearer(client: dict[str, Any]) -> dict[str, str]:
    """The header with a client's token."""
    return {"Authorization": f"Bearer {client['token']}"}


def of_client(method: str, path: str, client_id: str, query: str = "", **headers: str) -> Request:
    """A request about a client."""
    return Request(method, f"/clients/{{client_id}}{path}", {"client_id": client_id}, query, headers)


def post(body: object = None, query: str = "", **headers: str) -> Request:
    """A request to register."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return Request("POST", "/clients", {}, query, (JSON if data else {}) | headers, data)


def test_registry_answers_all_that_is_documented_and_nothing_else() -> None:
    """Every status and kind of problem of every route, with its headers; answers are as their schemas say."""
    contract = Contract(delivery.document(), "registry")
    with ExitStack() as stack:

        def ask(registry: Registry, *requests: Request) -> dict[str, Any]:
            answer = None
            for request in requests:
                contract.take(request.having(STRANGE), send(registry.http, request.having(STRANGE)))
                if "Origin" not in request.headers:
                    answer = send(registry.http, request.having(PAGE))
                    contract.take(request.having(PAGE), answer)
                answer = send(registry.http, request)
                contract.take(request, answer)
            assert answer is not None
            return json.loads(answer.body) if answer.media_type.endswith("json") else {}

        registry = stack.enter_context(serving())
        _ask_clients(registry, ask)
        _ask_pages(registry, ask)
        _ask_without_subscriber(registry, ask)
        _ask_refused_registrations(stack, ask)
    assert contract.unanswered() == []
    # Its empty stream ends at once: no proxy has to be asked not to hold it back.
    assert contract.absent_headers() == [("GET", "/clients/{client_id}/stream", "200", "x-accel-buffering")]


Ask = Callable[..., dict[str, Any]]


def _ask_clients(registry: Registry, ask: Ask) -> None:
    client = ask(registry, post())
    other = ask(registry, post({"cluster": "1", "transport": "websocket"}))
    gone = ask(registry, post({"transport": "poll"}))
    known, token = client["client_id"], bearer(client)
    ask(
        registry,
        post(b"{"),
        post(b"x" * 5000),
        post(b"{}", **{"Content-Type": "text/plain"}),
        post({"client_id": "me"}),
        post(query="transport=poll"),
        post(**FOREIGN),
        post(**HANDSHAKE),
        Request("GET", "/clients", query="limit=1"),
        Request("GET", "/clients", query=f"after={known}"),
        Request("GET", "/clients", query="limit=0"),
        Request("GET", "/clients", headers=FOREIGN),
        Request("GET", "/clients", headers=HANDSHAKE),
        of_client("GET", "", known),
        of_client("GET", "", "nobody"),
        of_client("GET", "", known, **FOREIGN),
        of_client("GET", "", known, **HANDSHAKE),
        of_client("DELETE", "", known),
        of_client("DELETE", "", known, **bearer(other)),
        of_client("DELETE", "", "nobody", **token),
        of_client("DELETE", "", known, **token, **FOREIGN),
        of_client("DELETE", "", known, **token, **HANDSHAKE),
    )
    for path in ("tickets", *STREAMS):
        method = "POST" if path == "tickets" else "GET"
        ask(
            registry,
            of_client(method, f"/{path}", known, "after=e:7", **token),
            of_client(method, f"/{path}", known, Cookie=f"emostream_token={client['token']}"),
            of_client(method, f"/{path}", known),
            of_client(method, f"/{path}", known, **bearer(other)),
            of_client(method, f"/{path}", "nobody", **token),
            of_client(method, f"/{path}", known, **token, **FOREIGN),
            # At the one path that serves WebSockets, this is a handshake as it should be.
            of_client(method, f"/{path}", known, **token, **HANDSHAKE),
        )
    removed = of_client("DELETE", "", gone["client_id"], **bearer(gone))
    registry.bus.silent = True
    ask(registry, removed)
    registry.bus.silent = False
    # Once for a program, once for a page.
    again = ask(registry, post())
    for headers, leaving in (({}, gone), (PAGE, again)):
        ask(registry, of_client("DELETE", "", leaving["client_id"], **bearer(leaving), **headers))
    for path in STREAMS:
        ask(registry, of_client("GET", f"/{path}", gone["client_id"], **EVENTS, **{"Last-Event-ID": "e:1"}))


def _ask_pages(registry: Registry, ask: Ask) -> None:
    made = window(1, trigger_ns=registry.clock() - 1, emitted_ns=registry.clock())
    registry.bus.writer().send(NAMES.aggregates.name, encode(made))
    until(lambda: registry.observer.newest_event_id() == "e:1", "the registry has read the window")
    documents = ("/clusters", "/targets", "/healthz", "/metrics", "/openapi.json", "/docs", "/ops/data", "/watching")
    for path in (*documents, "/page/settings.json", "/page/emoji.json", *STATIC):
        plain = Request("GET", path, {"filename": "main.js"})
        ask(registry, plain, plain.having(FOREIGN), plain.having(HANDSHAKE))
    ask(registry, Request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}))
    for path in ("/page/emoji.json", *STATIC):
        plain = Request("GET", path, {"filename": "main.js"})
        etag = send(registry.http, plain).headers["etag"]
        ask(registry, plain.having({"If-None-Match": etag}), plain.having({"If-Match": '"another"'}))
    for path in STATIC:
        plain = Request("GET", path, {"filename": "page.css"})
        ask(registry, plain.having({"Range": "bytes=0-9"}), plain.having({"Range": "bytes=999999-"}))
    ask(
        registry,
        Request("GET", "/page/{filename}", {"filename": "icon.svg"}),
        Request("GET", "/page/{filename}", {"filename": "page.css"}),
        Request("GET", "/page/{filename}", {"filename": "index.html"}),
        Request("GET", "/page/{filename}", {"filename": "nothing.js"}),
    )


def _ask_without_subscriber(registry: Registry, ask: Ask) -> None:
    client = ask(registry, post())
    known, token = client["client_id"], bearer(client)
    registry.clock.advance(VALUES.silent_s + 1)
    ask(registry, post(), of_client("POST", "/tickets", known, **token))
    for path in STREAMS:
        ask(
            registry,
            of_client("GET", f"/{path}", known, **token),
            of_client("GET", f"/{path}", known, **token, **EVENTS),
        )
    ask(registry, Request("GET", "/clusters"), Request("GET", "/ops/data"), Request("GET", "/clients"))


def _ask_refused_registrations(stack: ExitStack, ask: Ask) -> None:
    limited = stack.enter_context(serving(registrations_per_address_min=1))
    send(limited.http, post())
    ask(limited, post())
    full = stack.enter_context(serving(clients_max=1))
    send(full.http, post())
    ask(full, post())
    silent = stack.enter_context(serving())
    silent.bus.silent = True
    ask(silent, post())
    hasty = stack.enter_context(serving())
    for refusal in (front.body_too_slow(), front.too_many_unfinished("192.0.2.1")):
        hasty.http.environ_base[FAILED] = refusal
        ask(hasty, post())


def test_every_path_of_the_registry_takes_head_and_preflights_and_names_its_methods() -> None:
    """As `x-every-path` says."""
    with serving() as registry:
        check_every_path(registry.http, Contract(delivery.document(), "registry"), PAGE, FOREIGN)
