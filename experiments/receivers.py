"""The audience: registers clients and receives as real SSE clients, in a process of its own.

`python -m experiments.receivers REGISTRY_URL CLIENTS OUT_DIR` prints `ready` once every client has its stream.
Given a line `until <event id> <seconds>` on standard input it ends when every client has that window (or the time
is over), and writes `clients.parquet` and `deliveries.parquet`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pandas as pd
import uvloop

from experiments import files
from pipeline.delivering.sse import SseParser
from pipeline.errors import EmoStreamError
from pipeline.messages import Window, decode_window

CONNECT_AT_ONCE = 50
CONNECT_S = 30.0
CLIENT_COLUMNS = ["client_id", "cluster", "subscriber", "joined_ns", "left_ns"]
DELIVERY_COLUMNS = [
    *("client_id", "epoch", "window", "event_id", "received_ns"),
    *("main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns", "total"),
]


@dataclass
class Client:
    """One simulated fan's screen and all it received: (received_ns, event id, data)."""

    client_id: str
    token: str
    cluster: str
    subscriber: str
    stream_url: str
    joined_ns: int = 0
    left_ns: int = 0
    received: list[tuple[int, str, str]] = field(default_factory=list)
    joined: asyncio.Event = field(default_factory=asyncio.Event)


async def register(session: aiohttp.ClientSession, registry: str) -> Client:
    """Register one client. Raises EmoStreamError with the registry's own words if it is refused."""
    async with session.post(f"{registry}/clients", json={}) as answer:
        body = await answer.json(content_type=None)
        if answer.status != 201:
            raise EmoStreamError(f"the registry refused a client with {answer.status}: {body.get('detail', body)}")
        return Client(body["client_id"], body["token"], body["cluster"], body["subscriber"], body["stream_url"])


async def listen(session: aiohttp.ClientSession, client: Client) -> None:
    """Open the client's stream and note each window's arrival until cancelled or the stream ends.

    A stream that the chain ends is no leaving: what the client then does not get, it misses.
    """
    headers = {"Authorization": f"Bearer {client.token}"}
    # aiohttp drops the token at a redirect to another port, so the redirect is followed by hand.
    async with session.get(client.stream_url, headers=headers, allow_redirects=False) as answer:
        if answer.status != 307:
            raise EmoStreamError(f"{client.stream_url} answered {answer.status} instead of 307")
        place = answer.headers["Location"]
    parser = SseParser()
    async with session.get(place, headers=headers) as stream:
        if stream.status != 200:
            raise EmoStreamError(f"{place} answered {stream.status}: {(await stream.text())[:200]}")
        async for chunk in stream.content.iter_any():
            now_ns = time.time_ns()
            if not client.joined.is_set():
                client.joined_ns = now_ns
                client.joined.set()
            for event in parser.feed(chunk):
                if event.event == "window":
                    client.received.append((now_ns, event.id or "", event.data))


async def audience(registry: str, count: int) -> Sequence[Client]:
    """Register and connect `count` clients, receive until told to stop; return them with what they got."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        gate = asyncio.Semaphore(CONNECT_AT_ONCE)

        async def enrol() -> Client:
            async with gate:
                return await register(session, registry)

        clients = await asyncio.gather(*(enrol() for _ in range(count)))
        listening = [asyncio.create_task(listen(session, client)) for client in clients]
        joining = asyncio.create_task(_all_joined(clients))
        await _first(joining, listening, CONNECT_S)
        print("ready", flush=True)
        event_id, patience_s = await asyncio.to_thread(_instruction)
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s and not all(_has(client, event_id) for client in clients):
            await asyncio.sleep(0.05)
        left_ns = time.time_ns()
        ended = [client for client, task in zip(clients, listening, strict=True) if task.done()]
        for task in listening:
            task.cancel()
        outcomes = await asyncio.gather(*listening, return_exceptions=True)
        for client in clients:
            client.left_ns = left_ns
        if ended:
            errors = (outcome for outcome in outcomes if isinstance(outcome, Exception))
            print(
                f"experiments.receivers: {len(ended)} of {count} streams ended before the run did, the first at "
                f"subscriber {ended[0].cluster}/{ended[0].subscriber} ({next(errors, 'its end was regular')})",
                file=sys.stderr,
            )
        return clients


async def _all_joined(clients: Sequence[Client]) -> None:
    for client in clients:
        await client.joined.wait()


async def _first(joining: asyncio.Task[None], listening: list[asyncio.Task[None]], timeout_s: float) -> None:
    """Wait for every client to join; raise what ended a stream before."""
    done, _ = await asyncio.wait([joining, *listening], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    if joining in done:
        return
    for task in done:
        task.result()
    raise EmoStreamError(f"not every client had its stream within {timeout_s:g} s")


def _instruction() -> tuple[str, float]:
    """Read `until <event id> <seconds>`; the end of standard input means: stop now."""
    words = sys.stdin.readline().split()
    return (words[1], float(words[2])) if len(words) == 3 and words[0] == "until" else ("", 0.0)


def _has(client: Client, event_id: str) -> bool:
    return any(received[1] == event_id for received in reversed(client.received))


def frames(clients: Sequence[Client]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames `clients` and `deliveries` of the ledger."""
    # Every client of a subscriber gets the same bytes: each distinct window is decoded once.
    decoded: dict[str, Window] = {}
    rows = []
    for client in clients:
        for received_ns, event_id, data in client.received:
            window = decoded.get(data)
            if window is None:
                window = decoded[data] = decode_window(data.encode())
            main, cluster, subscriber = (hop.sent_ns for hop in window.hops)
            rows.append(
                (
                    *(client.client_id, window.epoch, window.window, event_id, received_ns),
                    *(main, cluster, subscriber, window.total),
                )
            )
    joined = [(c.client_id, c.cluster, c.subscriber, c.joined_ns, c.left_ns) for c in clients]
    return pd.DataFrame(joined, columns=CLIENT_COLUMNS), pd.DataFrame(rows, columns=DELIVERY_COLUMNS)


def main() -> None:
    """`python -m experiments.receivers`."""
    line = argparse.ArgumentParser(prog="experiments.receivers", description="Receive as many SSE clients.")
    line.add_argument("registry", help="base URL of the registry")
    line.add_argument("clients", type=int, help="how many clients")
    line.add_argument("out", type=Path, help="directory for clients.parquet and deliveries.parquet")
    options = line.parse_args()
    try:
        joined, deliveries = frames(uvloop.run(audience(options.registry, options.clients)))
        files.to_parquet(joined, options.out / "clients.parquet")
        files.to_parquet(deliveries, options.out / "deliveries.parquet")
    except EmoStreamError as error:
        sys.exit(f"experiments.receivers: {error}")


if __name__ == "__main__":
    main()
