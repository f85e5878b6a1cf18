"""A closed-loop HTTP client to find a server's limit: N keep-alive connections, each of which waits for its answer.

For latency use the open-loop load instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from experiments.load import http1

# A server that stops answering fails the benchmark instead of hanging it.
DRAIN_S = 15.0


@dataclass
class Outcome:
    """How many answers had each status, and how long it took, in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    @property
    def rps(self) -> float:
        """Answers per second."""
        return self.statuses.total() / self.elapsed_s if self.elapsed_s else 0.0


class _Connection(http1.HttpConnection):
    def __init__(self, requests: Iterator[bytes], outcome: Outcome, ended: asyncio.Future[None]) -> None:
        super().__init__()
        self._requests = requests
        self._outcome = outcome
        self._ended = ended

    def opened(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.close()
        else:
            self.write(request)

    def answered(self, status: int, closing: bool) -> None:
        self._outcome.statuses[status] += 1
        self.opened()

    def lost(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


async def hammer(
    host: str, port: int, requests: list[bytes], connections: int, duration_s: float, rounds: int | None = None
) -> Outcome:
    """Send `requests` over `connections` for `duration_s` seconds, or `rounds` times each; return the outcome.

    It waits for the answer to every request, so the statuses add up to the requests that the server got. Raises
    TimeoutError when a server stops answering.
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
