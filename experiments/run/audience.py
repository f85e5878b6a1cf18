"""The audience: registers clients and receives windows as real SSE clients, in a process of its own.

`python -m experiments.run.audience REGISTRY_URL CLIENTS OUT_DIR` prints `ready` once every client has its stream.
After a line `until <event id> <seconds>` on standard input it ends when every client has that window or the time is
over, and writes `clients.parquet`, `deliveries.parquet` and `receivers_timer.parquet`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import uvloop

from experiments import files
from experiments.ledger import shown_hash
from experiments.machine.loop_timer import LoopTimer
from experiments.machine.scheduling import go_first
from pipeline.client.client import Client
from pipeline.client.http import open_session
from pipeline.client.registration import Credentials
from pipeline.errors import EmoStreamError
from pipeline.messages import Window, decode_window

CONNECT_AT_ONCE = 50
CONNECT_S = 30.0
CLIENT_COLUMNS = ["client_id", "cluster", "subscriber", "joined_ns", "left_ns"]
DELIVERY_COLUMNS = [
    *("client_id", "epoch", "window", "event_id", "received_ns"),
    *("main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns", "total", "shown_hash"),
]


@dataclass
class Screen:
    """One client's screen and all that it received: (received_ns, event id, data).

    A stream that is cut is resumed; a window that is missing, doubled or out of order shows in `received`.
    `credentials` is its first registration, `failure` the reason why it has no stream now.
    """

    client: Client
    credentials: Credentials | None = None
    joined_ns: int = 0
    left_ns: int = 0
    failure: str = ""
    received: list[tuple[int, str, str]] = field(default_factory=list)
    registered: asyncio.Event = field(default_factory=asyncio.Event)
    joined: asyncio.Event = field(default_factory=asyncio.Event)


async def listen(screen: Screen) -> None:
    """Record each window's arrival until cancelled; the client is entered already. Raises ClientError when refused.

    A client whose stream the chain ends has not left: windows that it then does not get are missing.
    """
    screen.credentials = screen.client.credentials
    screen.registered.set()
    received = screen.received
    async for received_ns, events in screen.client.received():
        for event in events:
            if event.event == "window":
                received.append((received_ns, event.id, event.data))
            elif event.event == "open":
                screen.failure = ""
                if not screen.joined.is_set():
                    screen.joined_ns = received_ns
                    screen.joined.set()
            elif event.event == "error":
                screen.failure = event.data


@asynccontextmanager
async def _entered(client: Client, gate: asyncio.Semaphore) -> AsyncIterator[None]:
    """Register and leave through `gate`, which bounds how many requests the registry gets at once."""
    async with AsyncExitStack() as stack:
        async with gate:
            await stack.enter_async_context(client)
        try:
            yield
        finally:
            async with gate:
                await stack.aclose()


async def audience(registry: str, count: int) -> Sequence[Screen]:
    """Register and connect `count` clients, receive until the instruction to stop; return them with their windows."""
    gate = asyncio.Semaphore(CONNECT_AT_ONCE)

    async def attend(screen: Screen) -> None:
        async with _entered(screen.client, gate):
            await listen(screen)

    async with open_session() as session:
        screens = [Screen(Client.register(registry, session=session)) for _ in range(count)]
        attending = [asyncio.create_task(attend(screen)) for screen in screens]
        try:
            await _every([screen.registered for screen in screens], attending, None)
            await joined(screens, attending)
            print("ready", flush=True)
            event_id, patience_s = await asyncio.to_thread(_instruction)
            deadline_s = time.monotonic() + patience_s
            while time.monotonic() < deadline_s and not all(_has(screen, event_id) for screen in screens):
                await asyncio.sleep(0.05)
            left_ns = time.time_ns()
            for screen in screens:
                screen.left_ns = left_ns
        finally:
            for task in attending:
                task.cancel()
            ends = await asyncio.gather(*attending, return_exceptions=True)
    for early in {str(end) for end in ends if isinstance(end, Exception)}:
        print(f"experiments.run.audience: a client's stream ended early: {early}", file=sys.stderr)
    return screens


async def joined(screens: Sequence[Screen], attending: list[asyncio.Task[None]]) -> None:
    """Wait until each has its stream. Raises the error of a client that failed, EmoStreamError after CONNECT_S."""
    if not await _every([screen.joined for screen in screens], attending, CONNECT_S):
        raise EmoStreamError(_absent(screens))


async def _every(events: list[asyncio.Event], attending: list[asyncio.Task[None]], timeout_s: float | None) -> bool:
    """Wait until all `events` are set; return whether they were in time. Raises the error of a client that failed."""

    async def all_set() -> None:
        for event in events:
            await event.wait()

    waiting = asyncio.create_task(all_set())
    try:
        done, _ = await asyncio.wait([waiting, *attending], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if waiting not in done:
        for task in done:
            task.result()
    return waiting in done


def _absent(screens: Sequence[Screen]) -> str:
    """Return how many have no stream, and the reason of the first of them."""
    absent = [screen for screen in screens if not screen.joined.is_set()]
    why = next((screen.failure for screen in absent if screen.failure), "no answer yet")
    return f"{len(absent)} of {len(screens)} clients had no stream within {CONNECT_S:g} s: {why}"


def _instruction() -> tuple[str, float]:
    """Read `until <event id> <seconds>`; at the end of standard input stop now."""
    words = sys.stdin.readline().split()
    return (words[1], float(words[2])) if len(words) == 3 and words[0] == "until" else ("", 0.0)


def _has(screen: Screen, event_id: str) -> bool:
    return any(received[1] == event_id for received in reversed(screen.received))


def frames(screens: Sequence[Screen]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames `clients` and `deliveries` of the ledger."""
    # Every client of a subscriber gets the same bytes: each distinct window is decoded once.
    decoded: dict[str, tuple[Window, int]] = {}
    joined, rows = [], []
    for screen in screens:
        own = screen.credentials
        assert own is not None
        joined.append((own.client_id, own.cluster, own.subscriber, screen.joined_ns, screen.left_ns))
        for received_ns, event_id, data in screen.received:
            if data not in decoded:
                window = decode_window(data.encode())
                shown = shown_hash((cell.emoji_type, cell.count, cell.representatives) for cell in window.reactions)
                decoded[data] = window, shown
            window, shown = decoded[data]
            main, cluster, subscriber = (hop.sent_ns for hop in window.hops)
            rows.append(
                (
                    *(own.client_id, window.epoch, window.window, event_id, received_ns),
                    *(main, cluster, subscriber, window.total, shown),
                )
            )
    return pd.DataFrame(joined, columns=CLIENT_COLUMNS), pd.DataFrame(rows, columns=DELIVERY_COLUMNS)


def main() -> None:
    """`python -m experiments.run.audience`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.run.audience", description="Receive windows as many SSE clients."
    )
    line.add_argument("registry", help="base URL of the registry")
    line.add_argument("clients", type=int, help="how many clients")
    line.add_argument("out", type=Path, help="directory for clients.parquet and deliveries.parquet")
    options = line.parse_args()
    timer = LoopTimer()

    async def timed() -> Sequence[Screen]:
        timing = asyncio.create_task(timer.run())
        try:
            return await audience(options.registry, options.clients)
        finally:
            timing.cancel()

    go_first()
    try:
        joined, deliveries = frames(uvloop.run(timed()))
        files.to_parquet(timer.frame(), options.out / "receivers_timer.parquet")
        files.to_parquet(joined, options.out / "clients.parquet")
        files.to_parquet(deliveries, options.out / "deliveries.parquet")
    except EmoStreamError as error:
        sys.exit(f"experiments.run.audience: {error}")


if __name__ == "__main__":
    main()
