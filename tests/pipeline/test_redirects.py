"""From the answer of POST /clients to windows, by an ordinary HTTP library: both stages, their topics in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from pipeline import lifecycle
from pipeline.bus.memory import MemoryBus
from pipeline.messages import encode
from pipeline.origins import Origins
from pipeline.registry.app import create_app
from pipeline.registry.registrations import Registrations
from pipeline.settings import Settings
from pipeline.subscriber.server import serve
from tests.harness.builders import NAMES, subscriber_bus, window
from tests.harness.waiting import DEADLINE_S, until_async


class Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def registry(bus: MemoryBus) -> Iterator[str]:
    """Serve a registry; yield its URL."""
    registrations = Registrations(bus, Settings(), pytest.fail)
    port = lifecycle.claim_port("127.0.0.1", 0, "registry_port")
    url = f"http://127.0.0.1:{port}"
    app = create_app(registrations, url, Origins("", url, port))
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        registrations.close()


async def read(http: aiohttp.ClientSession, client: dict[str, Any], after: str, count: int) -> list[str]:
    """Open a client's stream as POST /clients says, with its token; return the ids of its next windows."""
    headers = {"Authorization": f"Bearer {client['token']}"}
    query = {"after": after} if after else {}
    url, ids = client["stream_url"], []
    if client["transport"] == "websocket":
        async with http.ws_connect(url, headers=headers, params=query) as ws:
            while len(ids) < count:
                event = json.loads(await ws.receive_str())
                ids += [event["id"]] if event["event"] == "window" else []
    elif client["transport"] == "poll":
        while len(ids) < count:
            async with http.get(url, headers=headers, params=query) as answer:
                document = await answer.json()
                query = {"after": document["after"]}
                ids += [event["id"] for event in document["events"]]
    else:
        async with http.get(url, headers={**headers, **({"Last-Event-ID": after} if after else {})}) as answer:
            event_id = ""
            while len(ids) < count:
                field, _, value = (await answer.content.readline()).decode().strip().partition(": ")
                event_id = value if field == "id" else event_id
                ids += [event_id] if field == "data" else []
    return ids


@pytest.mark.parametrize("transport", ["sse", "websocket", "poll"])
def test_ordinary_client_watches_resumes_and_is_moved(transport: str) -> None:
    """Like other libraries, aiohttp drops the token at the redirect to another port: the ticket admits it."""
    bus = subscriber_bus()
    writer = bus.writer()

    async def scenario(url: str) -> None:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            stops = [threading.Event(), threading.Event()]
            subscribers = []
            for number, stop in enumerate(stops):
                values = Settings().replace(subscriber=str(number))
                port = lifecycle.claim_port("127.0.0.1", 0, "subscriber_port")
                subscribers.append(asyncio.create_task(serve(values, port, bus, bus, stop)))
            try:
                await until_async(lambda: _live(http, url, 2), "both subscribers are live")
                async with http.post(f"{url}/clients", json={"transport": transport}) as answer:
                    client = await answer.json()
                reading = asyncio.create_task(read(http, client, "earliest", 2))
                for number in (1, 2):
                    writer.send(NAMES.feed("1").name, encode(window(number)))
                assert await reading == ["e:1", "e:2"]
                gone = int(client["subscriber"])
                stops[gone].set()
                await subscribers[gone]
                await until_async(lambda: _live(http, url, 1), "one subscriber is live")
                writer.send(NAMES.feed("1").name, encode(window(3)))
                assert await read(http, client, "e:1", 2) == ["e:2", "e:3"]
                async with http.get(f"{url}/clients/{client['client_id']}") as answer:
                    assert (await answer.json())["subscriber"] == str(1 - gone)
            finally:
                for stop in stops:
                    stop.set()
                await asyncio.gather(*subscribers)

    async def bounded(url: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario(url)

    with registry(bus) as url:
        asyncio.run(bounded(url))


async def _live(http: aiohttp.ClientSession, url: str, count: int) -> bool:
    async with http.get(f"{url}/healthz") as answer:
        return bool((await answer.json())["subscribers_live"] == count)
