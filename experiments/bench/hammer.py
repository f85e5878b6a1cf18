"""A closed-loop HTTP client for finding a server's limit: N keep-alive connections, each waiting for its answer.

It speaks just enough HTTP/1.1 to cost less than the server it drives: requests are prepared bytes, an answer's
status and length are all that is read of it. For latency use the open-loop load instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import cast

# A server that stops answering fails the benchmark instead of hanging it.
DRAIN_S = 15.0


@dataclass
class Outcome:
    """How many answers came with each status, and how long the whole took, in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    @property
    def rps(self) -> float:
        """Answers a second."""
        return self.statuses.total() / self.elapsed_s if self.elapsed_s else 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], outcome: Outcome, ended: asyncio.Future[None]) -> None:
        self._requests = requests
        self._outcome = outcome
        self._ended = ended
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio.Transport, only its equal.
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        if head < 0 or len(received) < head + 4 + _length(received[:head]):
            self._received = received
            return
        self._received = b""
        self._outcome.statuses[int(received[9:12])] += 1
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def _length(head: bytes) -> int:
    start = head.lower().find(b"content-length:")
    if start < 0:
        return 0
    return int(head[start + 15 :].split(b"\r\n", 1)[0])


def post(path: str, body: bytes) -> bytes:
    """Return the bytes of a JSON POST on a connection that stays open."""
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        len(body),
        body,
    )


def get(path: str) -> bytes:
    """Return the bytes of a GET on a connection that stays open."""
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()


async def hammer(
    host: str, port: int, requests: list[bytes], connections: int, duration_s: float, rounds: int | None = None
) -> Outcome:
    """Send `requests` over `connections` for `duration_s` seconds, or `rounds` times each; return what came back.

    Every request that was sent is waited for, so the statuses add up to what the server saw. Raises TimeoutError
    when a server stops answering.
    """
    loop = asyncio.get_running_loop()
    outcome = Outcome()
    deadline_s = time.perf_counter() + duration_s

    def planned() -> Iterator[bytes]:
        for _ in range(rounds) if rounds else count():
            for request in requests:
                if time.perf_counter() > deadline_s:
                    return
                yield request

    shared = planned()
    started_s = time.perf_counter()
    ended = []
    for _ in range(connections):
        future: asyncio.Future[None] = loop.create_future()
        ended.append(future)
        await loop.create_connection(lambda f=future: _Connection(shared, outcome, f), host, port)  # type: ignore[misc]
    async with asyncio.timeout(duration_s + DRAIN_S):
        await asyncio.gather(*ended)
    outcome.elapsed_s = time.perf_counter() - started_s
    return outcome
