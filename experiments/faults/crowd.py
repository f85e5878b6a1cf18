"""A crowd that loses its subscribers at once, and comes back: every client goes on where it was."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import aiohttp

from pipeline.client.client import Client
from pipeline.client.http import open_session
from pipeline.errors import EmoStreamError

AT_ONCE = 200
"""Requests that the crowd has under way while it registers."""
COMING_S, BACK_S = 240.0, 120.0
SHOWN = 3


async def comes_back(registry: str, count: int, cut: Callable[[], object]) -> float:
    """Connect `count` clients, call `cut`, and return after how many seconds each one has received a new window.

    Raises EmoStreamError if one does not come, does not come back, or has a window twice or not at all.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    received: list[list[str]] = [[] for _ in range(count)]
    async with open_session() as session:
        tasks = [asyncio.create_task(_watch(registry, session, gate, into)) for into in received]
        try:
            await _until(lambda: all(received), tasks, f"{count} clients have a window", COMING_S)
            before = [len(into) for into in received]
            cut()
            begun_s = time.monotonic()
            # The first may have been on its way when the connection was cut.
            new = [had + 2 for had in before]
            back = lambda: all(len(into) >= due for into, due in zip(received, new, strict=True))  # noqa: E731
            await _until(back, tasks, f"{count} clients have new windows", BACK_S)
            took_s = time.monotonic() - begun_s
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if wrong := [each for into in received for each in gaps(into)]:
        raise EmoStreamError(f"{len(wrong)} faults at {count} clients: {'; '.join(wrong[:SHOWN])}")
    return took_s


def gaps(ids: Sequence[str]) -> list[str]:
    """Return what is wrong with the ids that a client received: within an epoch each is one more than the last."""
    wrong = []
    for before, after in itertools.pairwise(ids):
        (epoch, _, number), (next_epoch, _, next_number) = before.rpartition(":"), after.rpartition(":")
        if epoch == next_epoch and int(next_number) != int(number) + 1:
            wrong.append(f"{after} came after {before}")
    return wrong


async def _watch(registry: str, session: aiohttp.ClientSession, gate: asyncio.Semaphore, into: list[str]) -> None:
    client = Client.register(registry, session=session)
    async with gate:
        await client.__aenter__()
    # The crowd leaves without a farewell, as crowds do.
    async for batch in client.received():
        into.extend(event.id for event in batch.events if event.event == "window")


async def _until(
    condition: Callable[[], bool], tasks: Sequence[asyncio.Task[None]], what: str, within_s: float
) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise EmoStreamError(f"a client of the crowd failed: {error}") from error
        if time.monotonic() > deadline_s:
            raise EmoStreamError(f"after {within_s:g} s still not: {what}")
        await asyncio.sleep(0.2)
