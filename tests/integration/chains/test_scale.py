"""Subscribers and clusters come and go while people watch: everyone is led on, and nobody misses a window."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from experiments.run import chain
from experiments.run.chain import Endpoints
from pipeline.sse import SseParser
from tests.harness.live import emitted, react
from tests.harness.processes import module
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SETTINGS: dict[str, object] = {
    "trigger_s": 1.0, "clusters": 1, "subscribers": 1, "ingest_workers": 1, "moves_per_s": 10,
}  # fmt: skip
CLIENTS = 24
DEADLINE_S = 60.0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Endpoints]:
    """A chain of its own: one cluster of one subscriber, 1-second windows."""
    with chain.started(SETTINGS, tmp_path / "chain") as endpoints:
        yield endpoints


class Watcher:
    """A client that comes back to its stream_url whenever its stream ends, with the last id it has."""

    def __init__(self, http: aiohttp.ClientSession, registry: str) -> None:
        self._http = http
        self._registry = registry
        self.ids: list[str] = []
        self.others: list[str] = []
        self.places: list[str] = []

    async def watch(self) -> None:
        """Register, and watch until cancelled."""
        async with self._http.post(f"{self._registry}/clients", json={}) as answer:
            said = await answer.json()
        while True:
            with suppress(aiohttp.ClientError):
                await self._stream(said["stream_url"], {"Authorization": f"Bearer {said['token']}"})
            await asyncio.sleep(0.2)

    async def _stream(self, url: str, headers: dict[str, str]) -> None:
        last = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
        async with self._http.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status != 307:
                return
            place = answer.headers["Location"]
        parser = SseParser()
        async with self._http.get(place, headers={**headers, **last}) as stream:
            if stream.status != 200:
                return
            self.places.append(place.partition("/clients/")[0])
            async for chunk in stream.content.iter_any():
                for event in parser.feed(chunk):
                    (self.ids if event.event == "window" else self.others).append(event.id or "")


async def scale(run_dir: str, cluster: str, subscribers: int) -> dict[str, Any]:
    """Run the command; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *module("pipeline", "scale", "--run-dir", run_dir, "--cluster", cluster, "--subscribers", str(subscribers)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    said: dict[str, Any] = json.loads(out)
    return said


def test_subscribers_and_clusters_come_and_go_and_nobody_misses_a_window(small: Endpoints) -> None:
    """Clients move to what was added and back from what was removed, subscriber or cluster, and keep every window."""

    async def loads(http: aiohttp.ClientSession) -> dict[str, int]:
        async with http.get(f"{small.registry}/clusters") as answer:
            clusters = (await answer.json())["clusters"]
        return {
            f"{cluster['cluster']}/{one['subscriber']}": one["clients"]
            for cluster in clusters
            for one in cluster["subscribers"]
            if one["live"]
        }

    async def scenario() -> list[Watcher]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:

            async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
                await until_async(condition, what, DEADLINE_S, poll_s=0.1)

            async def even(*places: str) -> bool:
                found = await loads(http)
                counts = [found.get(place, 0) for place in places]
                return set(found) == set(places) and sum(counts) == CLIENTS and max(counts) - min(counts) <= 10

            watchers = [Watcher(http, small.registry) for _ in range(CLIENTS)]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one.watch()) for one in watchers]
                stop = asyncio.Event()
                reacting = group.create_task(react(http, small.ingest, stop))
                await until(lambda: even("1/1"), "everyone is at the only subscriber")

                said = await scale(small.run_dir, "1", 2)
                assert said["started"] == ["subscriber-1-2"]
                await until(lambda: even("1/1", "1/2"), "half of them have moved to the new one")
                said = await scale(small.run_dir, "1", 1)
                assert said["stopped"] == ["subscriber-1-2"]
                await until(lambda: even("1/1"), "all of them have come back")

                said = await scale(small.run_dir, "2", 1)
                assert said["started"] == ["cluster-publisher-2", "subscriber-2-1"]
                await until(lambda: even("1/1", "2/1"), "half of them have moved to the new cluster")
                _kill("pipeline.main_publisher", small)
                before = [len(one.ids) for one in watchers]

                async def all_go_on() -> bool:
                    return all(len(one.ids) > count + 1 for one, count in zip(watchers, before, strict=True))

                await until(all_go_on, "windows go to both clusters after the main publisher was killed")
                said = await scale(small.run_dir, "2", 0)
                assert said["stopped"] == ["subscriber-2-1", "cluster-publisher-2"]
                await until(lambda: even("1/1"), "everyone is back in the first cluster")

                stop.set()
                reactions = await reacting

                async def all_are_counted() -> bool:
                    return sum((await asyncio.to_thread(emitted, small)).values()) == reactions

                await until(all_are_counted, "the last reaction is in a window")
                newest = list(await asyncio.to_thread(emitted, small))[-1]

                async def all_have_it() -> bool:
                    return all(one.ids and one.ids[-1] == newest for one in watchers)

                await until(all_have_it, "everyone has the last window")
                for task in tasks:
                    task.cancel()
            return watchers

    watchers = asyncio.run(scenario())
    windows = list(emitted(small))
    for one in watchers:
        assert one.others == []
        assert one.ids == windows[windows.index(one.ids[0]) :]
    assert sum(len(set(one.places)) > 1 for one in watchers) >= CLIENTS // 3


def _kill(module: str, endpoints: Endpoints) -> None:
    """Kill that stage of the chain."""
    for process in psutil.Process(endpoints.pid).children(recursive=True):
        if module in process.cmdline():
            process.kill()
            return
    raise AssertionError(f"{module} does not run")
