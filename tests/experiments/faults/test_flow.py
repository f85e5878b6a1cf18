"""The load: its random choices are those of its seed, and it rests when it is told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from experiments.faults import scenarios
from experiments.faults.flow import Flow, Post
from experiments.faults.ledger import Told
from tests.harness.waiting import until


@contextmanager
def flowing(send: Post) -> Iterator[Flow]:
    """Send with `send`, without clients."""
    flow = Flow("http://ingest", "http://registry", 200.0, [], prefix="r", rng=random.Random(1), send=send)
    flow.start()
    try:
        yield flow
    finally:
        flow.close()


def test_nothing_is_under_way_while_it_is_quiet() -> None:
    """Each reaction that was sent has its answer; afterwards others are sent."""
    begun: list[bytes] = []
    ended: list[bytes] = []

    async def slowly(_http: aiohttp.ClientSession, _ingest: str, body: bytes) -> Told:
        begun.append(body)
        await asyncio.sleep(0.05)
        ended.append(body)
        return "accepted"

    with flowing(slowly) as flow:
        until(lambda: len(begun) > 5, "reactions are sent", 30)
        with flow.quiet():
            before = len(begun)
            assert len(ended) == before
            assert {each.told for each in flow.sent()} == {"accepted"}
            # Long enough for further ones.
            flow.do(asyncio.sleep(0.2))
            assert len(begun) == before
        until(lambda: len(begun) > before, "reactions are sent again", 30)
        flow.stop()
        assert flow.failures == []


def test_cut_answers_are_those_of_the_seed() -> None:
    """Two runs with one seed cut the same answers; another seed cuts others."""

    def cuts(seed: int) -> list[float | None]:
        class Http:
            """It notes how long an answer may take, and gives none."""

            def __init__(self) -> None:
                self.waits: list[float | None] = []

            def post(self, _url: str, *, timeout: aiohttp.ClientTimeout | None = None, **_: object) -> object:
                self.waits.append(timeout.total if timeout else None)
                raise aiohttp.ClientError

        http, send = Http(), scenarios.cut(random.Random(seed))

        async def several() -> None:
            for _ in range(30):
                assert await send(http, "http://ingest", b"") == "unknown"  # type: ignore[arg-type]

        asyncio.run(several())
        return http.waits

    assert cuts(1) == cuts(1)
    assert cuts(1) != cuts(2)
    assert 0 < cuts(1).count(None) < 30
