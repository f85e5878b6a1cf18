"""The audience against a registry and streams that are played: what it notes of streams that end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pandas as pd
from aiohttp import web

from pipeline.delivering.sse import comment, encode_event
from pipeline.messages import Hop, Window, encode

DEADLINE_S = 60
HOPS = (Hop("main-publisher", 1, 2, 3), Hop("cluster-publisher-1", 4, 5, 6), Hop("subscriber-1-1", 7, 8, 9))
WINDOW = encode(Window("e", 1, 0, 0, {}, 0, [], hops=HOPS))


class Played:
    """A registry whose own port is the subscriber's, too; `cut` ends the first client's stream."""

    def __init__(self) -> None:
        self.registered = 0
        self.cut = asyncio.Event()

    async def register(self, request: web.Request) -> web.Response:
        """Take a client."""
        name = f"client-{self.registered}"
        self.registered += 1
        place = f"http://{request.host}/clients/{name}/stream"
        document = {"client_id": name, "token": "t", "cluster": "1", "subscriber": "1", "stream_url": place}
        return web.json_response(document, status=201)

    async def lead(self, request: web.Request) -> web.Response:
        """Lead a client to its subscriber."""
        return web.Response(
            status=307, headers={"Location": f"http://{request.host}/held/{request.match_info['name']}"}
        )

    async def hold(self, request: web.Request) -> web.StreamResponse:
        """Send one window, and hold the stream."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(comment("connected") + encode_event("e:1", "window", WINDOW))
        if request.match_info["name"] == "client-0":
            await self.cut.wait()
        else:
            await asyncio.sleep(DEADLINE_S)
        return response


async def audience_of_three(out: Path) -> tuple[int, str]:
    """Run the receivers until the second client has all it waits for; return status and what they said."""
    played = Played()
    app = web.Application()
    app.router.add_post("/clients", played.register)
    app.router.add_get("/clients/{name}/stream", played.lead)
    app.router.add_get("/held/{name}", played.hold)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        receivers = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "experiments.receivers", url, "3", str(out)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert receivers.stdout is not None
        assert await receivers.stdout.readline() == b"ready\n"
        played.cut.set()
        # A window that never comes: they wait for as long as they are told.
        _, said = await receivers.communicate(b"until e:2 0.5\n")
        return receivers.returncode or 0, said.decode()
    finally:
        await runner.cleanup()


def test_a_stream_that_the_chain_ends_is_no_leaving(tmp_path: Path) -> None:
    """All clients leave when they are told to; one whose stream ended before is named, and misses what follows."""
    status, said = asyncio.run(asyncio.wait_for(audience_of_three(tmp_path), DEADLINE_S))
    assert status == 0
    assert "1 of 3 streams ended before the run did, the first at subscriber 1/1" in said
    clients = pd.read_parquet(tmp_path / "clients.parquet")
    assert clients["left_ns"].nunique() == 1
    assert (clients["left_ns"] - clients["joined_ns"] > 400_000_000).all()
    assert list(pd.read_parquet(tmp_path / "deliveries.parquet")["event_id"]) == ["e:1"] * 3
