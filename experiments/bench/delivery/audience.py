"""The crowd of the delivery benchmark: clients that register, follow the redirect, and keep their streams.

A client behaves as a browser's EventSource: it connects to its stable address, and when its stream ends it waits as
long as the server asked and connects there again with its last id.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from experiments.bench.delivery.audit import Join, Received
from experiments.bench.delivery.client import Client, Stream
from experiments.bench.delivery.wire import Pool, request
from experiments.units import NS_PER_S
from pipeline.errors import EmoStreamError

# A subscriber asks for this delay at the start of a stream.
RETRY_S = 1.0
# Fewer than the registry answers at a time, so that none waits.
REGISTRY_CONNECTIONS = 48
OPEN_S = 60.0
POLL_S = 0.05


class Audience:
    """All clients of one process. Every method is bounded in time and raises EmoStreamError if one fails permanently.

    `failures` counts the failures that were tried again.
    """

    def __init__(self, registry: str) -> None:
        parts = urlsplit(registry)
        self._pool = Pool(parts.hostname or "", parts.port or 80, REGISTRY_CONNECTIONS)
        self._clients: list[Client] = []
        self._connected: deque[Client] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures: Counter[str] = Counter()

    async def register(self, count: int, cluster: str, epoch: str) -> list[str]:
        """Register `count` clients that expect windows of `epoch`; return their subscribers, `cluster/subscriber`."""
        clients = [Client(epoch.encode()) for _ in range(count)]
        self._clients += clients
        await asyncio.gather(*(self._register(client, cluster) for client in clients))
        return [client.home for client in clients]

    async def open(self, which: Iterable[int], rate_per_s: float) -> float:
        """Connect these clients at this rate, whether earlier ones succeed or not; return the rate achieved, 1/s."""
        opening = [self._clients[index] for index in which]
        started_ns = array("q")
        async for index, due_ns in paced(len(opening), rate_per_s):
            started_ns.append(time.time_ns())
            self._enter(opening[index], self._watch(opening[index], due_ns))
        deadline_s = time.monotonic() + OPEN_S
        while absent := sum(client.stream is None for client in opening):
            self._raise_failures()
            if time.monotonic() > deadline_s:
                raise EmoStreamError(
                    f"{absent} of {len(opening)} clients had no stream {OPEN_S:g} s after the last was due to "
                    f"connect: {dict(self.failures) or 'no answer'}"
                )
            await asyncio.sleep(POLL_S)
        return (len(opening) - 1) * NS_PER_S / max(started_ns[-1] - started_ns[0], 1) if len(opening) > 1 else 0.0

    async def settle(self, number: int, patience_s: float) -> int:
        """Wait until every connected client has window `number`; return how many lack it after `patience_s`."""
        return await self._until(lambda client: bool(client.numbers) and client.numbers[-1] >= number, patience_s)

    async def elsewhere(self, address: str, patience_s: float) -> int:
        """Wait until every client has a stream from another server than `address`; return how many lack one."""
        return await self._until(
            lambda client: client.stream is not None and client.joins[-1].address != address, patience_s
        )

    async def churn(self, rate_per_s: float, length_s: float, cluster: str, epoch: str) -> dict[str, int]:
        """Every 1/`rate_per_s` seconds let a new client register and connect, and the oldest one leave.

        A leaving client closes its stream and ends its registration. Return how many came and left.
        """
        count = round(rate_per_s * length_s)
        left = 0
        async for _, due_ns in paced(count, rate_per_s):
            client = Client(epoch.encode())
            self._clients.append(client)
            self._enter(client, self._come(client, cluster, due_ns))
            leaver = self._connected.popleft()
            left += bool(leaver.joins)
            self._tasks.add(asyncio.create_task(self._leave(leaver)))
            self._raise_failures()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=OPEN_S)
        self._raise_failures()
        return {"came": count, "left": count, "left_without_a_stream": count - left}

    async def results(self) -> tuple[list[Received], dict[str, int]]:
        """Return the events of every client, in the order of their registration, and the failures."""
        self._raise_failures()
        return [client.received() for client in self._clients], dict(self.failures)

    async def _register(self, client: Client, cluster: str) -> None:
        answer = await self._pool.ask(request("POST", "/clients", body=msgspec.json.encode({"cluster": cluster})))
        if answer.status != 201:
            raise EmoStreamError(
                f"the registry answered {answer.status} to a registration: {answer.body[:300].decode(errors='replace')}"
            )
        registration = msgspec.json.decode(answer.body)
        client.client_id, client.token = registration["client_id"], registration["token"]
        client.home = f"{registration['cluster']}/{registration['subscriber']}"

    async def _come(self, client: Client, cluster: str, due_ns: int) -> None:
        try:
            await self._register(client, cluster)
        except (EmoStreamError, OSError) as error:
            self.failures[f"could not register: {error}"] += 1
        else:
            await self._watch(client, due_ns)

    async def _leave(self, client: Client) -> None:
        if client.task is not None:
            client.task.cancel()
            await asyncio.wait([client.task])
        if not client.token:
            return
        try:
            ask = request("DELETE", f"/clients/{client.client_id}", f"Authorization: Bearer {client.token}")
            if (answer := await self._pool.ask(ask)).status != 204:
                self.failures[f"DELETE was answered {answer.status}"] += 1
        except OSError as error:
            self.failures[f"could not leave: {error}"] += 1

    async def _watch(self, client: Client, due_ns: int) -> None:
        """Keep a client's stream open until this is cancelled."""
        while True:
            try:
                await self._one_stream(client, due_ns)
            except OSError as error:
                self.failures[type(error).__name__] += 1
            await asyncio.sleep(RETRY_S)
            due_ns = time.time_ns()

    async def _one_stream(self, client: Client, due_ns: int) -> None:
        """Ask the registry for a subscriber, connect to it, stay until the stream ends."""
        answer = await self._pool.ask(request("GET", f"/clients/{client.client_id}/stream", *client.headers()))
        if answer.status != 307:
            self.failures[f"the registry answered {answer.status}"] += 1
            return
        target = urlsplit(answer.header(b"location").decode())
        join = Join(due_ns, time.time_ns(), 0, target.netloc)
        stream = Stream(client, request("GET", target.path, *client.headers()), join)
        await asyncio.get_running_loop().create_connection(lambda: stream, target.hostname or "", target.port or 80)
        try:
            await stream.ended
        finally:
            stream.close()
        self.failures[f"a subscriber answered {stream.refused}" if stream.refused else "a stream ended"] += 1

    def _enter(self, client: Client, staying: Coroutine[Any, Any, None]) -> None:
        client.task = asyncio.create_task(staying)
        self._connected.append(client)

    def _raise_failures(self) -> None:
        """Raise the error that ended a client's task: a failure that is not tried again."""
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        for task in (*done, *(client.task for client in self._connected)):
            if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise EmoStreamError(f"a client failed: {error!r}") from error

    async def _until(self, condition: Callable[[Client], bool], patience_s: float) -> int:
        deadline_s = time.monotonic() + patience_s
        while lacking := sum(not condition(client) for client in self._connected):
            self._raise_failures()
            if time.monotonic() > deadline_s:
                break
            await asyncio.sleep(POLL_S)
        return lacking


async def paced(count: int, rate_per_s: float) -> AsyncIterator[tuple[int, int]]:
    """Yield each of `count` indices and its due time, epoch ns, at that time or as soon as possible after."""
    start_ns = time.time_ns()
    for index in range(count):
        due_ns = start_ns + round(index * NS_PER_S / rate_per_s)
        left_ns = due_ns - time.time_ns()
        await asyncio.sleep(max(left_ns, 0) / NS_PER_S)
        yield index, due_ns
