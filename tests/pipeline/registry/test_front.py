"""The registry behind its front: bodies that come slowly or not at all, and the addresses that count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline import front as front_module
from pipeline.front import Front
from pipeline.origins import Origins
from pipeline.registry.app import BODY_MAX_BYTES
from tests.harness.stages.rsgi import Answer
from tests.harness.stages.rsgi import ask as ask_front
from tests.pipeline.registry.test_app import Chain, started_chain

PAGE = "http://localhost:3000"


@contextmanager
def started(proxies: int = 0, **settings: object) -> Iterator[tuple[Chain, Front]]:
    """Start a registry with one subscriber, and a front before it with one thread."""
    with started_chain(origins=PAGE, **settings) as chain:
        yield (
            chain,
            Front(
                chain.http.application,
                Origins(PAGE, "", 8080),
                threads=1,
                body_max_bytes=BODY_MAX_BYTES,
                refused=chain.registrations.meters.refused,
                proxies=proxies,
            ),
        )


async def ask(front: Front, *pieces: bytes, **options: Any) -> Answer:
    """Send a request to register, or another one."""
    answer = await ask_front(front, *pieces, **{"path": "/clients", **options})
    assert answer is not None
    return answer


def test_slow_body_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred bodies stop half-way: others are answered meanwhile by the one thread, and those with 408."""
    monkeypatch.setattr(front_module, "BODY_S", 0.5)

    async def scene(front: Front) -> tuple[list[Answer], list[Answer]]:
        never = asyncio.Event()
        slow = [asyncio.create_task(ask(front, b"{", content_length="200", then=never.wait)) for _ in range(100)]
        slow += [asyncio.create_task(ask(front, b"{", method="DELETE", path="/clients/x", then=never.wait))]
        slow += [asyncio.create_task(ask(front, b"{", origin=PAGE, then=never.wait))]
        await asyncio.sleep(0)
        others = [await ask(front, b"{}"), await ask(front), await ask(front, path="/healthz", method="GET")]
        assert not any(task.done() for task in slow)
        return others, list(await asyncio.gather(*slow))

    with started() as (chain, front):
        others, slow = asyncio.run(scene(front))
        assert [other.status for other in others] == [201, 201, 200]
        for answer in slow:
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert "within 0.5 s" in answer.problem["detail"]
        assert slow[-1].headers["access-control-allow-origin"] == PAGE
        assert len(chain.registrations.assignments) == 2
        assert 'requests_refused_total{status="408"} 102' in chain.http.get("/metrics").text


def test_address_has_a_limit_of_unfinished_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it the address gets 503 with Retry-After; others do not."""
    monkeypatch.setattr(front_module, "UNFINISHED_MAX", 2)

    async def scene(front: Front) -> None:
        sent = asyncio.Event()
        slow = [asyncio.create_task(ask(front, b"{}", then=sent.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await ask(front, b"{}")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "2 requests from 192.0.2.1" in refused.problem["detail"]
        other = await ask(front, b"{}", address="192.0.2.2")
        sent.set()
        assert [answer.status for answer in (other, *await asyncio.gather(*slow))] == [201] * 3

    with started() as (_, front):
        asyncio.run(scene(front))


@pytest.mark.parametrize("pieces", [(b" " * 5000,), (b" " * 2000,) * 3, (b"{}" + b" " * (5 << 20),)])
def test_body_over_the_limit_returns_413(pieces: tuple[bytes, ...]) -> None:
    """With a length or in chunks, a little or far too large: the answer names the limit, and nobody is registered."""
    with started() as (chain, front):
        for length in ({}, {"content_length": ""}):
            answer = asyncio.run(ask(front, *pieces, **length))
            assert (answer.status, answer.problem["title"]) == (413, "Body too large")
            assert "4096 bytes" in answer.problem["detail"]
        assert len(chain.registrations.assignments) == 0


def test_body_without_a_length_is_read() -> None:
    """A client may send it in chunks."""
    with started() as (_, front):
        answer = asyncio.run(ask(front, b'{"transport":', b'"poll"}', content_length=""))
        assert (answer.status, json.loads(answer.body)["transport"]) == (201, "poll")


def test_behind_a_proxy_the_forwarded_address_counts() -> None:
    """Only the last address in X-Forwarded-For counts: the proxy wrote it, the client may have written the others."""
    with started(proxies=1, registrations_per_address_min=1) as (_, front):
        statuses = [
            asyncio.run(ask(front, x_forwarded_for=forwarded)).status
            for forwarded in ("10.0.0.1", "10.0.0.2", "1.2.3.4, 10.0.0.1", "2001:db8::1", "2001:db8::2")
        ]
        assert statuses == [201, 201, 429, 201, 429]
        # Without the header, the address of the connection counts.
        assert [asyncio.run(ask(front)).status for _ in range(2)] == [201, 429]


def test_without_a_proxy_the_header_is_not_believed() -> None:
    """A client may write what it likes; an IPv6 connection counts by its network."""
    with started(registrations_per_address_min=1) as (_, front):
        for address, status in (
            ("192.0.2.1", 201), ("192.0.2.1", 429), ("[2001:db8::1]", 201), ("[2001:db8::2]", 429),
        ):  # fmt: skip
            answer = asyncio.run(ask(front, address=address, x_forwarded_for="10.0.0.9"))
            assert answer.status == status


def test_cookies_and_queries_reach_the_registry() -> None:
    """The front passes on what the registry reads: the token in a cookie, and text that is not ASCII in a query."""
    with started() as (_, front):
        client = json.loads(asyncio.run(ask(front)).body)
        answer = asyncio.run(
            ask(
                front,
                method="GET",
                path=f"/clients/{client['client_id']}/stream",
                query="after=e:1&x=é😂",
                cookie=f"emostream_token={client['token']}",
            )
        )
        assert answer.status == 307
        assert "?after=e:1&x=" in answer.headers["location"]
