"""A subscriber answers what the document lists of it, and everything that it lists."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.openapi import delivery
from pipeline.openapi.parts import CORS, ref
from pipeline.origins import PREFLIGHT
from pipeline.subscriber import polling
from tests.harness.http_api.openapi import Answer, Contract, Request
from tests.harness.http_api.werkzeug_client import HANDSHAKE
from tests.pipeline.subscriber.test_server import Live, run, ticket

PAGE = {"Origin": "http://localhost:3000"}
STRANGE = {"Host": "elsewhere.example"}
FOREIGN = {"Origin": "http://elsewhere.example"}
TOKEN = {"Authorization": "Bearer token-x"}
SOCKET = "/clients/{client_id}/socket"
STREAMS = ("/clients/{client_id}/stream", SOCKET, "/clients/{client_id}/windows")


async def send(live: Live, request: Request) -> Answer:
    """Send a request; return the answer, without the body of a stream."""
    async with live.http.request(
        request.method, live.url + request.url, headers=dict(request.headers), allow_redirects=False
    ) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        streams = answer.status == 101 or answer.content_type == "text/event-stream"
        return Answer(answer.status, headers, b"" if streams else await answer.read())


class Conversation:
    """Asks a subscriber, and holds its answers to the document."""

    def __init__(self) -> None:
        self.contract = Contract(delivery.document(), "subscriber")

    async def ask(self, live: Live, *requests: Request) -> None:
        """Send each request, as a program and as a page does."""
        for request in requests:
            self.contract.take(request, await send(live, request))
            self.contract.take(request.having(STRANGE), await send(live, request.having(STRANGE)))
            if "Origin" not in request.headers and "Upgrade" not in request.headers:
                self.contract.take(request.having(PAGE), await send(live, request.having(PAGE)))


def stream(path: str, query: str = "", client_id: str = "x", **headers: str) -> Request:
    """A request for a stream."""
    handshake = HANDSHAKE if path == SOCKET else {}
    return Request("GET", path, {"client_id": client_id}, query, {**handshake, **headers})


def test_subscriber_answers_all_that_is_documented_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every status and kind of problem of every route, with its headers; answers are as their schemas say."""
    monkeypatch.setattr(polling, "WAIT_S", 0.01)
    conversation = Conversation()

    async def answers(live: Live) -> None:
        live.register("x")
        live.publish(1, 2)
        await live.until(lambda health: health["last_event_id"] == "e:2" and health["registered"] == 1)
        for path in ("/healthz", "/metrics", "/openapi.json", "/docs"):
            plain = Request("GET", path)
            await conversation.ask(live, plain, plain.having(FOREIGN))
        openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
        await conversation.ask(live, Request("GET", "/metrics", headers=openmetrics))
        for path in STREAMS:
            used = ticket("x")
            await send(live, stream(path, f"ticket={used}"))
            gone = {"Accept": "text/event-stream", "Last-Event-ID": "e:1"}
            await conversation.ask(
                live,
                stream(path, **TOKEN),
                stream(path, "after=e:1", **TOKEN),
                stream(path, **TOKEN, **{"Last-Event-ID": "e:1"}),
                stream(path, Cookie="emostream_token=token-x"),
                stream(path),
                stream(path, "ticket=what"),
                stream(path, f"ticket={ticket('x', age_s=11)}"),
                stream(path, f"ticket={used}"),
                stream(path, Authorization="Bearer token-y"),
                stream(path, f"ticket={ticket('y')}"),
                stream(path, f"ticket={ticket('x', '1/2')}"),
                stream(path, client_id="nobody", **TOKEN),
                stream(path, client_id="nobody", **TOKEN, **gone),
                stream(path, "after=what", **TOKEN),
                stream(path, "after=e:99", **TOKEN),
                stream(path, **TOKEN, **FOREIGN),
            )
        await conversation.ask(live, Request("GET", SOCKET, {"client_id": "x"}, headers=TOKEN))

    async def refusals(live: Live) -> None:
        live.register("x")
        async with live.watch("x") as watcher:
            await watcher.greeted()
            for path in STREAMS:
                await conversation.ask(live, stream(path, **TOKEN))

    run(answers, patience_s=0.05, origins=PAGE["Origin"])
    run(refusals, connections_max=1, origins=PAGE["Origin"])
    assert conversation.contract.unanswered() == []
    # To an allowed page a handshake is answered with a socket, which is closed with the reason of a refusal.
    socket = {
        ("GET", SOCKET, status, name.lower())
        for status in ("101", "204", "400", "401", "403", "404", "409", "503")
        for name in CORS[1:]
    }
    assert set(conversation.contract.absent_headers()) == socket


def test_every_path_of_a_subscriber_takes_preflights_and_names_its_methods() -> None:
    """As `x-every-path` says: OPTIONS is for pages only, and a stream takes no HEAD."""
    contract = Contract(delivery.document(), "subscriber")

    async def scenario(live: Live) -> None:
        for template in contract.routes():
            path = template.format(client_id="x")
            preflight = await send(live, Request("OPTIONS", path, headers=PAGE))
            assert {name: preflight.headers[name.lower()] for name in PREFLIGHT} == PREFLIGHT
            assert (preflight.status, preflight.body) == (204, b"")
            assert (await send(live, Request("OPTIONS", path, headers=FOREIGN))).status == 403
            for method in ("OPTIONS", "POST", "PUT", "PATCH", "DELETE"):
                answer = await send(live, Request(method, path))
                contract.check_refused(answer, 405)
                allowed = {"GET"} if template in STREAMS else {"GET", "HEAD"}
                assert set(answer.headers["allow"].split(",")) == allowed
            head = await send(live, Request("HEAD", path))
            assert (head.status, head.body) == (405 if template in STREAMS else 200, b"")
        for unknown in ("/unknown", "/clients/x"):
            contract.check_refused(await send(live, Request("GET", unknown)), 404)

    run(scenario, origins=PAGE["Origin"])


@pytest.mark.parametrize("path", ["socket", "stream"])
def test_events_are_as_their_schemas_say(path: str) -> None:
    """The events of a WebSocket's messages and of server-sent events: begin, window and reset."""
    contract = Contract(delivery.document(), "subscriber")
    seen: list[str] = []

    async def socket(live: Live) -> None:
        live.register("x")
        live.publish(600, 601)
        await live.until(lambda health: health["last_event_id"] == "e:601")
        for query, count in (("", 1), ("?after=e:1", 1), ("?after=e:600", 1)):
            async with live.http.ws_connect(f"{live.url}/clients/x/socket{query}", headers=TOKEN) as opened:
                for _ in range(count):
                    event = json.loads(await opened.receive_str())
                    schema = ref("schemas", f"{event['event'].capitalize()}Event")
                    contract.check(schema, event, f"message {event}")
                    seen.append(event["event"])
        assert seen == ["begin", "reset", "window"]

    async def server_sent(live: Live) -> None:
        live.register("x")
        live.publish(600, 601)
        await live.until(lambda health: health["last_event_id"] == "e:601")
        events: Any = contract.document["paths"]["/clients/{client_id}/stream"]["get"]["responses"]["200"]["content"]
        for query in ("?after=e:1", "?after=e:600"):
            async with live.watch("x", query) as watcher:
                event = await watcher.next()
                schema = events["text/event-stream"]["schema"]["x-events"][event.event]
                contract.check(schema, json.loads(event.data), f"event {event}")
                seen.append(event.event)
        assert seen == ["reset", "window"]

    run(socket if path == "socket" else server_sent, patience_s=0.05)
