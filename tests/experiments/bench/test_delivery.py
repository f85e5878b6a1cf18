"""The harness of the delivery benchmark: its clients on real sockets, and an audit that finds what was put wrong."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from array import array
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from experiments.bench import suites
from experiments.bench.delivery import audience as delivery_audience
from experiments.bench.delivery import feed as delivery_feed
from experiments.bench.delivery.audience import Audience, paced
from experiments.bench.delivery.audit import Tally, audit, back_s, figure, first_bytes_s, last_s, quantiles, tally
from experiments.bench.delivery.churn import Phase, compare
from experiments.bench.delivery.client import Client, Join, Received
from experiments.bench.delivery.crowd import Crowd
from experiments.bench.delivery.feed import Feed
from experiments.bench.delivery.measurements import summary
from experiments.bench.delivery.wire import Event, EventReader
from experiments.cli.instrument import SUITES
from pipeline import lifecycle
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.messages import Registration, encode
from pipeline.settings import Settings
from pipeline.sse import comment, encode_event, retry
from pipeline.subscriber.frames import chunked
from pipeline.subscriber.process import fastest_loop
from pipeline.subscriber.server import serve
from pipeline.tokens import token_sha256

NAMES = topics(Settings())
DEADLINE_S = 60
PATIENCE_S = 30.0

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = [
    retry(1000) + comment("connected"),
    encode_event("e:0", "window", b'{"emoji_type": "id: e:9", "n": 1}'),
    comment("beat"),
    encode_event("e:1", "reset", b"{}"),
    encode_event(None, None, b"no id"),
]
EVENTS = [Event(b"e:0", b"window"), Event(b"e:1", b"reset")]


def stream(in_chunks: bool) -> bytes:
    """An answer as a subscriber sends it, in chunks or plain."""
    return HEAD + b"".join(chunked(piece) if in_chunks else piece for piece in PIECES)


@pytest.mark.parametrize("in_chunks", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_ids_are_read_wherever_the_stream_is_cut(in_chunks: bool, size: int) -> None:
    """Whatever the network makes of the bytes, each event comes once, with its own id and type."""
    received, reader = stream(in_chunks), EventReader()
    events = [event for start in range(0, len(received), size) for event in reader.feed(received[start : start + size])]
    assert reader.status == 200
    assert [event for event in events if event.event_id] == EVENTS


def test_an_event_counts_when_its_end_is_there() -> None:
    """The time of receipt is that of the last byte, not of the id."""
    reader = EventReader()
    event = encode_event("e:5", "window", b"{}")
    assert reader.feed(HEAD + event[:-1]) == []
    assert reader.feed(event[-1:]) == [Event(b"e:5", b"window")]


def test_events_that_are_not_windows_are_counted_separately() -> None:
    """A reset, another epoch and a malformed id are not windows."""
    client = Client(b"e")
    for event in (
        (b"e:3", b"window"),
        (b"e:4", b"reset"),
        (b"other:5", b"window"),
        (b"e:x", b"window"),
        (b"", b"window"),
    ):
        client.take(Event(*event), 1)
    assert list(client.numbers) == [3]
    assert client.strange == 4


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([3, 4, 5], Tally(0, 0, 0, 0)),
        ([2, 3, 4, 5], Tally(0, 0, 0, 0)),
        ([3, 5], Tally(1, 0, 0, 0)),
        ([4, 5], Tally(1, 0, 0, 0)),
        ([3, 4], Tally(1, 0, 0, 0)),
        ([1, 3, 4, 5], Tally(1, 0, 0, 0)),
        ([], Tally(3, 0, 0, 0)),
        ([3, 4, 4, 5, 3], Tally(0, 2, 0, 0)),
        ([3, 5, 4], Tally(0, 0, 1, 0)),
        ([5, 4, 3], Tally(0, 0, 2, 0)),
        ([3, 5, 5], Tally(1, 1, 0, 0)),
    ],
)
def test_every_fault_is_found_and_named(numbers: list[int], found: Tally) -> None:
    """Windows 3 to 5 were owed: lost, doubled and out of order are counted, each as what it is."""
    assert audit(numbers, 3, 5) == found


def got(numbers: list[int], *opened_ns: int, received_ns: list[int] | None = None, strange: int = 0) -> Received:
    """What a client got whose streams opened at these times, the first at place a, the others at b."""
    joins = [Join(opened - 2, opened - 1, opened, "b" if at else "a") for at, opened in enumerate(opened_ns)]
    return Received(joins, array("q", numbers), array("q", received_ns or [0] * len(numbers)), strange)


def test_windows_sent_after_the_stream_opened_are_due() -> None:
    """Not what came before; but every window since, and without a gap from the first it got."""
    sent_ns = [100, 200, 300, 400]
    assert tally([got([2, 3], 250)], sent_ns, 3) == Tally(0, 0, 0, 0)
    assert tally([got([1, 2, 3], 250)], sent_ns, 3) == Tally(0, 0, 0, 0)
    assert tally([got([0, 2, 3], 250), got([3], 250), got([2], 250, strange=2)], sent_ns, 3) == Tally(3, 0, 0, 2)
    assert tally([got([])], sent_ns, 3) == Tally(4, 0, 0, 0)


def test_windows_between_the_first_and_last_are_due_to_a_client_that_left() -> None:
    """Whether one just sent was still its own cannot be told; a gap in the middle can."""
    assert tally([got([1, 2], 50), got([]), got([], 50)], [100, 200, 300, 400], None) == Tally(0, 0, 0, 0)
    assert tally([got([0, 1, 3, 3], 50)], [100, 200, 300, 400], None) == Tally(1, 1, 0, 0)


def test_the_last_client_decides_and_a_missing_window_is_infinite() -> None:
    """Time counts from the sending to the slowest client; a loss must not look like speed."""
    sent_ns = [0, 10**9, 2 * 10**9]
    fast = got([1, 2], 1, received_ns=[10**9 + 10**8, 2 * 10**9 + 10**8])
    slow = got([1], 1, received_ns=[10**9 + 3 * 10**8])
    assert last_s([fast, slow], sent_ns, range(1, 3)).tolist() == pytest.approx([0.3, math.inf])
    assert last_s([fast], sent_ns, range(1, 3)).tolist() == pytest.approx([0.1, 0.1])
    assert quantiles(np.array([0.1, math.inf])) == {"p50_s": 0.1, "p99_s": None, "max_s": None}
    assert figure(math.nan) is None


def test_coming_back_counts_on_another_server_after_the_kill() -> None:
    """Neither the stream before nor one more at the dead place is service; who never comes back is seen."""
    back = got([1, 2], 5, 10**9, received_ns=[6, 2 * 10**9])
    opened_s, served_s = back_s([back, got([1], 5, received_ns=[6])], "a", 100)
    assert opened_s.tolist() == pytest.approx([1.0, math.inf], abs=1e-6)
    assert served_s.tolist() == pytest.approx([2.0, math.inf], abs=1e-6)
    assert back_s([got([], 5, 10**9)], "b", 100)[0].tolist() == [math.inf]
    from_due_s, from_redirect_s = first_bytes_s([back, got([])])
    assert (from_due_s.tolist(), from_redirect_s.tolist()) == ([2e-9], [1e-9])


def test_a_round_is_compared_with_the_quiet_around_it_and_the_median_round_counts() -> None:
    """One phase with other work on the host decides nothing; all phases together are reported as well."""
    # Three windows a phase: quiet, busy, quiet, busy, quiet, busy, quiet; the second busy phase is hit by something.
    latency_ns = [10] * 3 + [11] * 3 + [10] * 3 + [90] * 3 + [10] * 3 + [12] * 3 + [10] * 3
    sent_ns = [1_000 * number for number in range(21)]
    received_ns = [sent + late for sent, late in zip(sent_ns, latency_ns, strict=True)]
    phases = [Phase(range(first, first + 3), 0.5) for first in range(0, 21, 3)]
    found = compare([got(list(range(21)), 0, received_ns=received_ns)], sent_ns, phases[::2], phases[1::2])
    assert [one["p99_ratio"] for one in found["rounds"]] == [1.1, 9.0, 1.2]
    assert (found["p99_ratio"], found["p99_ratio_of_all"]) == (1.2, 9.0)
    assert (found["quiet"]["windows"], found["quiet"]["stolen_s"]) == (12, 2.0)
    assert (found["churn"]["windows"], found["churn"]["stolen_s"]) == (9, 1.5)


def test_a_promise_is_kept_by_a_figure_and_by_nothing_else() -> None:
    """What could not be measured keeps no promise, and the limits stand on the right side."""
    best: dict[str, Any] = {"p99_s": 0.4, "max_s": 8.0}
    parts = {
        "fan_in": {
            "clients": 1,
            "first_byte": {"p99_s": 2.0},
            "publish_to_last": best,
            "kb_per_connection": 30.0,
            **dict.fromkeys(("lost", "duplicated", "reordered"), 0),
        },
        "fan_out": {"levels": [{"messages_per_cpu_s": 1}, {"messages_per_cpu_s": 30_000}]},
        "churn": {"p99_ratio": 1.19, "lost": 0},
        "failover": {"window_elsewhere": best, "lost": 0},
    }
    assert all(summary(**parts)["kept"].values())
    parts["failover"] = {"window_elsewhere": {"max_s": None}, "lost": 1}
    parts["churn"]["p99_ratio"] = 1.2
    broken = summary(**parts)
    assert [name for name, kept in broken["kept"].items() if not kept] == [
        "churn_p99_ratio",
        "failover_s",
        "failover_missed",
    ]
    json.dumps(broken, allow_nan=False)


def test_the_window_is_of_the_size_of_a_real_one() -> None:
    """Six seconds of reactions over thirty emoji, each with a representative."""
    types = delivery_feed.counted()
    assert len(types) == 30
    assert abs(sum(one.count for one in types) - delivery_feed.REACTIONS) < 20
    assert all(0 < one.count <= 10 * one.representatives for one in types)


def test_the_command_line_has_every_suite() -> None:
    """What can be asked for can be run."""
    assert set(SUITES) == set(suites.SUITES)


def test_the_pace_does_not_wait_for_slow_work() -> None:
    """Each index is due at its own time, however late the one before was taken up."""

    async def due() -> list[int]:
        taken = []
        async for index, due_ns in paced(4, 100):
            taken.append(due_ns)
            if not index:
                await asyncio.sleep(0.05)
        return taken

    assert np.diff(asyncio.run(due())).tolist() == [10_000_000] * 3


class Chain:
    """Two real subscribers over a bus in memory, and a registry that knows nothing but where each client belongs."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.bus.ensure(NAMES.clients, NAMES.subscribers, NAMES.feed("1"))
        self.feed = Feed(self.bus, Settings(), "1")
        self.ports = [lifecycle.claim_port("127.0.0.1", 0, "port") for _ in range(3)]
        self.registry = f"http://127.0.0.1:{self.ports[2]}"
        self.stops = [threading.Event(), threading.Event()]
        self.servers: list[asyncio.Task[None]] = []
        self.homes: dict[str, int] = {}
        self.deleted: list[str] = []
        self.refuses = False

    def place(self, number: int) -> str:
        """Where a subscriber listens."""
        return f"127.0.0.1:{self.ports[number]}"

    async def start(self) -> web.AppRunner:
        """Serve; the runner is the registry's."""
        for number, stop in enumerate(self.stops):
            values = Settings().replace(subscriber=str(number + 1))
            self.servers.append(
                asyncio.create_task(serve(values, self.ports[number], self.bus, self.bus, stop, PATIENCE_S))
            )
        app = web.Application()
        app.router.add_post("/clients", self.register)
        app.router.add_get("/clients/{client_id}/stream", self.redirect)
        app.router.add_delete("/clients/{client_id}", self.remove)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.ports[2]).start()
        while {record.key for record in self.bus.tail(NAMES.subscribers.name, 99)} != {b"1/1", b"1/2"}:
            for server in self.servers:
                assert not server.done(), await server
            await asyncio.sleep(0.005)
        return runner

    async def register(self, request: web.Request) -> web.Response:
        """POST /clients: in turn to the one and the other."""
        if self.refuses:
            return web.json_response({"detail": "far too many"}, status=429)
        assert await request.json() == {"cluster": "1"}
        client_id, home = f"c{len(self.homes)}", len(self.homes) % 2
        self.homes[client_id] = home
        record = Registration(client_id, token_sha256(f"t-{client_id}"), "1", str(home + 1), 1)
        self.bus.writer().send(NAMES.clients.name, encode(record), client_id.encode())
        told = {"client_id": client_id, "token": f"t-{client_id}", "cluster": "1", "subscriber": str(home + 1)}
        return web.json_response(told, status=201)

    async def redirect(self, request: web.Request) -> web.Response:
        """GET …/stream: to the client's home, or to the other one once that has stopped."""
        home = self.homes[request.match_info["client_id"]]
        live = home if not self.stops[home].is_set() else 1 - home
        return web.Response(status=307, headers={"Location": f"http://{self.place(live)}{request.path}"})

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /clients/{id}: with its own token."""
        client_id = request.match_info["client_id"]
        assert request.headers["Authorization"] == f"Bearer t-{client_id}"
        self.deleted.append(client_id)
        return web.Response(status=204)


def run(scenario: Callable[[Chain], Awaitable[None]]) -> None:
    """Run `scenario` beside a chain, and see that the chain stops cleanly."""

    async def everything() -> None:
        chain = Chain()
        runner = await chain.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await scenario(chain)
        finally:
            for stop in chain.stops:
                stop.set()
            await asyncio.gather(*chain.servers)
            await runner.cleanup()

    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(everything())


def test_clients_move_when_their_subscriber_ends_and_miss_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From registration over the redirect to the last id, and once more after a loss: nothing missed, nothing twice."""
    monkeypatch.setattr(delivery_audience, "RETRY_S", 0.05)

    async def scenario(chain: Chain) -> None:
        audience = Audience(chain.registry)
        assert sorted(await audience.register(6, "1", chain.feed.epoch)) == ["1/1"] * 3 + ["1/2"] * 3
        assert await audience.open(range(6), 1000.0) > 0
        assert await audience.settle(chain.feed.publish(3, 0)[-1], PATIENCE_S) == 0
        stopped_ns = time.time_ns()
        chain.stops[0].set()
        await chain.servers[0]
        missed = chain.feed.publish(2, 0)
        assert await audience.elsewhere(chain.place(0), PATIENCE_S) == 0
        assert await audience.settle(chain.feed.publish(2, 0)[-1], PATIENCE_S) == 0
        received, failures = await audience.results()
        assert tally(received, chain.feed.sent_ns, 6) == Tally(0, 0, 0, 0)
        assert [len(one.joins) for one in received] == [
            2 if one.joins[0].address == chain.place(0) else 1 for one in received
        ]
        assert failures["a stream ended"] == 3
        moved = [one for one in received if one.joins[0].address == chain.place(0)]
        assert len(moved) == 3
        opened_s, served_s = back_s(moved, chain.place(0), stopped_ns)
        assert np.isfinite(opened_s).all()
        assert (served_s >= opened_s).all()
        assert np.isfinite(last_s(received, chain.feed.sent_ns, missed)).all()
        # A missing client does not settle, and is reported.
        assert await audience.settle(99, 0.0) == 6

    run(scenario)


def test_churners_come_and_go_in_order_and_the_audience_stays_as_large() -> None:
    """Whoever is here longest leaves and ends its registration; newcomers get windows like everyone."""

    async def scenario(chain: Chain) -> None:
        audience = Audience(chain.registry)
        await audience.register(3, "1", chain.feed.epoch)
        await audience.open(range(3), 1000.0)
        assert (await audience.churn(100.0, 0.06, "1", chain.feed.epoch))["came"] == 6
        assert set(chain.deleted) >= {"c0", "c1", "c2"}
        # Those who came last may still be on their way, and have no stream when the window goes out.
        while await audience.settle(chain.feed.publish(1, 0)[-1], 0.2):
            pass
        received, failures = await audience.results()
        assert len(received) == 9
        assert failures == {}
        assert not any(one.numbers for one in received[:3])
        assert tally(received, chain.feed.sent_ns, None) == Tally(0, 0, 0, 0)

    run(scenario)


def test_a_crowd_process_returns_results_and_errors() -> None:
    """Figures come back through the pipe, and so does a failure, with its own text."""

    async def scenario(chain: Chain) -> None:
        def hold() -> Any:
            with Crowd(chain.registry) as crowd:
                assert sorted(crowd.ask("register", 4, "1", chain.feed.epoch)) == ["1/1"] * 2 + ["1/2"] * 2
                crowd.start("open", range(4), 500.0)
                assert crowd.result() > 0
                assert crowd.ask("settle", chain.feed.publish(5, 0.01)[-1], PATIENCE_S) == 0
                chain.refuses = True
                with pytest.raises(EmoStreamError, match=r"429 to a registration.*far too many"):
                    crowd.ask("register", 1, "1", chain.feed.epoch)
                return crowd.ask("results")

        received, failures = await asyncio.to_thread(hold)
        assert tally(received[:4], chain.feed.sent_ns, 4) == Tally(0, 0, 0, 0)
        assert failures == {}
        # The one that was refused is not forgotten: it got nothing.
        assert [list(one.numbers) for one in received] == [[0, 1, 2, 3, 4]] * 4 + [[]]

    run(scenario)


def test_a_crowd_process_that_ends_raises() -> None:
    """A benchmark does not wait for what will never answer."""
    with Crowd("http://127.0.0.1:9") as crowd:
        with pytest.raises(EmoStreamError, match="register failed"):
            crowd.ask("register", 1, "1", "e")
        crowd.start("nonsense")
        with pytest.raises(EmoStreamError, match="ended"):
            crowd.result()


def test_publishing_stops_when_enough() -> None:
    """After a kill windows are published until all clients are back."""
    bus = MemoryBus()
    feed = Feed(bus, Settings(), "1")
    answers = SimpleNamespace(left=3)

    def enough() -> bool:
        answers.left -= 1
        return answers.left < 0

    assert feed.publish(100, 0, enough) == range(3)
    assert feed.publish(2, 0) == range(3, 5)
    assert len(feed.sent_ns) == len(bus.tail(NAMES.feed("1").name, 99)) == 5
