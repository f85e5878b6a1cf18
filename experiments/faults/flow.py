"""The load of a scenario: senders that note what they were told, and clients that note what they received."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import aiohttp

from experiments.faults.ledger import RESET, Sent, Told
from experiments.load.schedule import POPULAR_EMOJIS, timestamp_of
from pipeline.client.client import Client
from pipeline.errors import ClientError
from pipeline.messages import Transport, Window, decode_window
from pipeline.openapi.kinds import NOT_ACKNOWLEDGED

ANSWER_S = 15.0
# A scenario may stop Kafka for two minutes: a client that tries again outlasts it.
TRIES, TRIES_AT_THE_END = 60, 3
AGAIN_S = 0.5
OUTSTANDING_MAX = 1_000
Post = Callable[[aiohttp.ClientSession, str, bytes], Coroutine[Any, Any, Told]]
Sending = Callable[[random.Random], Post]
"""Makes a `Post` whose random choices are those of the argument."""


async def post(http: aiohttp.ClientSession, ingest: str, body: bytes) -> Told:
    """Send a body once; return what the sender knows then."""
    headers = {"Content-Type": "application/json"}
    try:
        async with http.post(f"{ingest}/reactions", data=body, headers=headers) as answer:
            if answer.status == 202:
                return "accepted"
            problem = json.loads(await answer.read())
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return "unknown"
    # What Kafka has not acknowledged is kept, and may be counted.
    return "unknown" if problem.get("title") == NOT_ACKNOWLEDGED.title else "refused"


def plainly(_: random.Random) -> Post:
    """Return what sends each body once, by `post`."""
    return post


class Flow:
    """Sends `rate_per_s` reactions with ids until `stop`, each again until it is accepted, and receives meanwhile.

    `clients` are pairs of cluster and transport. Everything runs in a thread with an event loop of its own.
    """

    def __init__(
        self,
        ingest: str,
        registry: str,
        rate_per_s: float,
        clients: Sequence[tuple[str, Transport]],
        *,
        prefix: str,
        rng: random.Random,
        send: Post,
    ) -> None:
        self.ingest = ingest
        self.registry = registry
        self.rate_per_s = rate_per_s
        self.told: dict[str, Sent] = {}
        self.received: dict[str, list[Window | None]] = {}
        self.cuts: list[str] = []
        """Each stream that did not stay open, and why: a client lost it, or was told that it missed windows."""
        self.failures: list[BaseException] = []
        self._clients = clients
        self._prefix = prefix
        self._rng = rng
        self._send = send
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flow", daemon=True)
        self._stopping = asyncio.Event()
        self._flowing = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._receivers: list[asyncio.Task[None]] = []
        self._numbers = itertools.count()

    def start(self) -> None:
        """Connect the clients and begin to send."""
        self._thread.start()
        self.do(self._start())

    def do(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float = 60.0) -> Any:
        """Carry out a coroutine in the flow's event loop; return its result. Raises TimeoutError, and ends it then."""
        begun = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return begun.result(timeout_s)
        finally:
            begun.cancel()

    def stop(self, timeout_s: float = 180.0) -> None:
        """Send no more, and wait until each reaction has its last answer. Raises what a sender raised."""

        async def stop() -> None:
            self._stopping.set()
            await asyncio.gather(*self._tasks)

        self.do(stop(), timeout_s)

    def close(self) -> None:
        """End the clients and the event loop. Raises what a client raised."""

        async def leave() -> None:
            for task in (*self._tasks, *self._receivers):
                task.cancel()
            for ended in await asyncio.gather(*self._tasks, *self._receivers, return_exceptions=True):
                if isinstance(ended, Exception):
                    self.failures.append(ended)

        if self._thread.is_alive():
            self.do(leave())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    @contextmanager
    def quiet(self, within_s: float = 120.0) -> Iterator[None]:
        """Send nothing meanwhile; each reaction that was sent has its last answer at the beginning."""

        async def rest() -> None:
            self._flowing.clear()
            await asyncio.gather(*self._under_way, return_exceptions=True)

        self.do(rest(), within_s)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flowing.set)

    def sent(self) -> list[Sent]:
        """Return every reaction with its last answer."""
        return list(self.told.values())

    async def _start(self) -> None:
        for number, (cluster, transport) in enumerate(self._clients):
            name = f"{transport}-{number}"
            self.received[name] = []
            ready = asyncio.Event()
            self._receivers.append(asyncio.create_task(self._receive(name, cluster, transport, ready)))
            await asyncio.wait_for(ready.wait(), 30)
        self._flowing.set()
        self._tasks.append(asyncio.create_task(self._pace()))

    async def _receive(self, name: str, cluster: str, transport: Transport, ready: asyncio.Event) -> None:
        into = self.received[name]
        while True:
            with suppress(ClientError):
                async with Client.register(self.registry, cluster, transport) as client:
                    async for batch in client.received():
                        for event in batch.events:
                            if event.event == "open":
                                ready.set()
                            elif event.event == "error":
                                self.cuts.append(f"{name}: {event.data}")
                            elif event.event == "reset":
                                self.cuts.append(f"{name}: reset: {event.data}")
                                into.append(RESET)
                            elif event.event == "window":
                                into.append(decode_window(event.data.encode()))
            # The registry refused permanently, or forgot the client: a new one begins with the next window.
            self.cuts.append(f"{name}: its registration ended")
            into.append(RESET)
            await asyncio.sleep(AGAIN_S)

    async def _pace(self) -> None:
        """Begin a reaction whenever one is due, while fewer than OUTSTANDING_MAX wait for their last answer."""

        def ended(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.failures.append(error)

        due_s = time.monotonic()
        timeout, connector = aiohttp.ClientTimeout(total=ANSWER_S), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            while not self._stopping.is_set():
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                due_s += 1 / self.rate_per_s
                if not self._flowing.is_set():
                    due_s = time.monotonic() + 1 / self.rate_per_s
                elif len(self._under_way) < OUTSTANDING_MAX:
                    self._under_way.add(task := asyncio.create_task(self.react(http)))
                    task.add_done_callback(ended)
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def react(self, http: aiohttp.ClientSession) -> None:
        """Send one reaction until it is accepted, at most TRIES times, and note what was said last."""
        reaction_id = f"{self._prefix}{next(self._numbers)}"
        kind = self._rng.choice(POPULAR_EMOJIS)
        reaction = {
            "user_id": f"fan-{self._rng.randrange(1000)}",
            "emoji_type": kind,
            "timestamp": timestamp_of(time.time_ns()),
            "reaction_id": reaction_id,
        }
        body = json.dumps(reaction).encode()
        told: Told = "refused"
        # Noted before the first byte: from then on it may count.
        self.told[reaction_id] = Sent(reaction_id, kind, "unknown")
        for attempt in range(TRIES):
            answer = await self._send(http, self.ingest, body)
            # Once it may be counted, a later refusal does not take that back.
            told = answer if answer == "accepted" or told == "refused" else told
            if told == "accepted" or (self._stopping.is_set() and attempt + 1 >= TRIES_AT_THE_END):
                break
            await asyncio.sleep(AGAIN_S)
        self.told[reaction_id] = Sent(reaction_id, kind, told)
