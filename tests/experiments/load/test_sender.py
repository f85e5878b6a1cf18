"""The open-loop load against servers that answer, dawdle, hang up, or are not there. No assertion is on speed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import psutil
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.load import http1
from experiments.load import sender as sending
from experiments.load.schedule import bodies, poisson_plan, timestamp_of, user_names
from experiments.load.sender import send
from experiments.load.sender_processes import PER_PROCESS_S, postponed, processes_for
from experiments.machine.scheduling import scheduling
from experiments.units import NS_PER_S
from pipeline.errors import SettingError
from tests.harness.waiting import until

ANSWER = b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"accepted":1}'


Result = TypeVar("Result")


class Server:
    """What a server has seen: connections, the heads and bodies of requests, and what it says to the n-th of them."""

    def __init__(self, script: Callable[[Server, int], object]) -> None:
        self.script = script
        self.url = ""
        self.connections = 0
        self.open: set[asyncio.Task[None]] = set()
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.answered = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: `script` gives the answer's bytes, None to hang up, or an awaitable of either."""
        self.connections += 1
        self.open.add(asyncio.current_task())
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                answer = self.script(self, len(self.bodies) - 1)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is None:
                    break
                writer.write(answer)
                self.answered += 1


@asynccontextmanager
async def serving(script: Callable[[Server, int], object] = lambda server, number: ANSWER) -> AsyncIterator[Server]:
    """Yield a server that is up."""
    server = Server(script)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=1024)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in server.open:
            task.cancel()
        await asyncio.gather(*server.open)
        await asyncio.sleep(0.01)


def ended(body: Coroutine[Any, Any, Result]) -> Result:
    """Run `body` on the loop that the load uses; what hangs is an error."""
    return uvloop.run(asyncio.wait_for(body, 40))


def planned(count: int, gap_ms: float = 1.0, lead_ms: float = 50.0) -> pd.DataFrame:
    """Return a plan of `count` reactions, `gap_ms` apart, that begins soon."""
    due_ns = time.time_ns() + ((lead_ms + gap_ms * np.arange(count)) * 1e6).astype(np.int64)
    return pd.DataFrame(
        {
            "seq": np.arange(count, dtype=np.int64) + 100,
            "user_id": [f"fan-{number % 7}" for number in range(count)],
            "emoji_type": "😂",
            "t_intended_ns": due_ns,
            "phase": "measured",
        }
    )


def seen(server: Server) -> Counter[tuple[str, str, str]]:
    """Return the reactions that a server got, each with how often."""
    loaded = (json.loads(body) for body in server.bodies)
    return Counter((one["user_id"], one["emoji_type"], one["timestamp"]) for one in loaded)


def wanted(plan: pd.DataFrame) -> Counter[tuple[str, str, str]]:
    """Return the reactions of a plan as a server should get them."""
    rows = zip(plan["user_id"], plan["emoji_type"], plan["t_intended_ns"], strict=True)
    return Counter((user, kind, timestamp_of(t_ns)) for user, kind, t_ns in rows)


def test_each_reaction_is_posted_once_and_not_before_its_time() -> None:
    """Every row of the plan arrives in a request of its own, as planned, and is answered and recorded in order."""

    async def run() -> None:
        async with serving() as server:
            plan = planned(300)
            sent, _ = await send(plan, server.url)
            assert seen(server) == wanted(plan)
            assert all(head.startswith(b"POST /reactions HTTP/1.1\r\n") for head in server.heads)
            assert all(b"\r\nContent-Type: application/json\r\n" in head for head in server.heads)
            assert list(sent.columns) == ["seq", "t_sent_ns", "t_answered_ns", "status"]
            assert list(sent["seq"]) == list(plan["seq"])
            assert (sent["status"] == 202).all()
            assert (sent["t_sent_ns"] >= plan["t_intended_ns"]).all()
            assert (sent["t_answered_ns"] >= sent["t_sent_ns"]).all()
            # Connections stay open. On a busy machine many reactions are due at once, and more are opened.
            assert server.connections < len(plan)

    ended(run())


def test_each_status_is_recorded_for_its_reaction() -> None:
    """What a server refuses is recorded with the status it gave."""
    statuses = (202, 422, 429, 503)

    def script(server: Server, number: int) -> bytes:
        code = statuses[int(json.loads(server.bodies[number])["user_id"][4:]) % 4]
        # In pieces or whole, with or without a body: all are answers.
        body = b"x" * (code % 7)
        return b"HTTP/1.1 %d Whatever\r\nServer: t\r\ncontent-length: %d\r\n\r\n%b" % (code, len(body), body)

    async def run() -> None:
        async with serving(script) as server:
            plan = planned(80)
            sent, _ = await send(plan, server.url)
            numbers = plan["user_id"].str[4:].astype(int)
            assert list(sent["status"]) == [statuses[number % 4] for number in numbers]

    ended(run())


def test_slow_answers_delay_no_reaction() -> None:
    """All are sent while not one is answered: the loop is open."""

    async def run() -> None:
        release = asyncio.Event()

        async def hold() -> bytes:
            await release.wait()
            return ANSWER

        async with serving(lambda server, number: hold()) as server:
            plan = planned(400)
            sending_all = asyncio.create_task(send(plan, server.url))
            while len(server.bodies) < len(plan):
                await asyncio.sleep(0.01)
            assert server.answered == 0
            release.set()
            sent, _ = await sending_all
            assert len(sent) == len(plan)
            assert (sent["status"] == 202).all()

    ended(run())


def test_a_reaction_that_counted_on_a_connection_already_taken_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection's task may end later than the connection stands; no reaction is left waiting for it."""
    connect = sending._Sender._connect

    async def late(sender: sending._Sender) -> None:
        await connect(sender)
        await asyncio.sleep(0.2)

    monkeypatch.setattr(sending._Sender, "_connect", late)
    # An answer that never comes would free a connection after this, and hide the fault.
    monkeypatch.setattr(sending, "ANSWER_S", 3600.0)
    monkeypatch.setattr(sending, "OPEN_AT_START", 1)
    monkeypatch.setattr(sending, "ANSWER_EXPECTED_S", 0.0)

    async def run() -> None:
        release = asyncio.Event()

        async def hold() -> bytes:
            await release.wait()
            return ANSWER

        async with serving(lambda server, number: hold()) as server:
            plan = planned(20)
            sending_all = asyncio.create_task(send(plan, server.url))
            while len(server.bodies) < len(plan):
                await asyncio.sleep(0.01)
            release.set()
            assert (await sending_all).reactions["status"].eq(202).all()

    ended(run())


def test_beyond_the_bound_a_reaction_waits_and_its_delay_shows() -> None:
    """With every connection busy a reaction is sent when one is free, is stamped then, and none is left out."""

    async def run() -> None:
        release = asyncio.Event()
        released_ns = 0

        async def hold() -> bytes:
            await release.wait()
            return ANSWER

        async with serving(lambda server, number: hold()) as server:
            plan = planned(20)
            sending_all = asyncio.create_task(send(plan, server.url, connections=5))
            while len(server.bodies) < 5 or time.time_ns() < int(plan["t_intended_ns"].iloc[-1]):
                await asyncio.sleep(0.01)
            assert len(server.bodies) == 5
            released_ns = time.time_ns()
            release.set()
            sent, _ = await sending_all
            assert server.connections == 5
            assert list(sent["seq"]) == list(plan["seq"])
            assert (sent["status"] == 202).all()
            assert list(sent["t_sent_ns"] > released_ns) == [False] * 5 + [True] * 15
            assert seen(server) == wanted(plan)

    ended(run())


def test_a_connection_that_is_cut_costs_its_own_reaction_only() -> None:
    """A server that hangs up instead of answering leaves status 0 there; every other reaction is answered."""

    async def run() -> None:
        async with serving(lambda server, number: None if number % 3 == 0 else ANSWER) as server:
            plan = planned(90)
            sent, _ = await send(plan, server.url)
            assert seen(server) == wanted(plan)
            assert Counter(sent["status"]) == {0: 30, 202: 60}
            assert (sent["t_sent_ns"] > 0).all()
            assert (sent.loc[sent["status"] == 0, "t_answered_ns"] == 0).all()

    ended(run())


def test_incomplete_answer_counts_as_no_answer() -> None:
    """A connection that is lost in the middle of an answer leaves no status behind."""

    async def run() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER[:-5])
            await writer.drain()
            writer.close()

        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        sent, _ = await send(planned(6), f"http://127.0.0.1:{port}")
        listening.close()
        assert list(sent["status"]) == [0] * 6

    ended(run())


def test_a_connection_announced_as_closing_is_not_used_again() -> None:
    """After `HttpConnection: close` the next reaction goes out on another connection and is answered."""
    last = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def run() -> None:
        async with serving(lambda server, number: last) as server:
            sent, _ = await send(planned(30), server.url, connections=2)
            assert (sent["status"] == 202).all()
            assert server.connections >= 30

    ended(run())


def test_a_connection_idle_for_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server closes what idles, so a reaction never relies on a connection that has done so for long."""
    monkeypatch.setattr(sending, "IDLE_S", 0.05)

    async def run() -> None:
        async with serving() as server:
            sent, _ = await send(planned(3, gap_ms=200.0), server.url)
            assert (sent["status"] == 202).all()
            # The last of them each needed a new one.
            assert server.connections >= 4

    ended(run())


def test_late_answer_counts_as_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ANSWER_S a reaction is given up, so that a server that hangs ends the load."""
    monkeypatch.setattr(sending, "ANSWER_S", 0.3)
    monkeypatch.setattr(sending, "LOOK_S", 0.05)

    async def hang() -> bytes:
        await asyncio.sleep(60)
        return ANSWER

    async def run() -> None:
        async with serving(lambda server, number: hang() if number == 2 else ANSWER) as server:
            sent, _ = await send(planned(5, gap_ms=5.0), server.url)
            assert sorted(sent["status"]) == [0, 202, 202, 202, 202]

    ended(run())


def test_no_server_leaves_every_reaction_without_an_answer() -> None:
    """Where nothing listens each reaction is an attempt with status 0: that is the chain's failure, and shows."""
    plan = planned(20)
    sent, _ = ended(send(plan, "http://127.0.0.1:9"))
    assert list(sent["seq"]) == list(plan["seq"])
    assert (sent["status"] == 0).all()
    assert (sent["t_answered_ns"] == 0).all()


def test_stop_keeps_what_was_sent() -> None:
    """Stopped early, there is a row for each reaction that went out and for no other."""

    async def run() -> None:
        stop = asyncio.Event()

        def script(server: Server, number: int) -> bytes:
            if number == 9:
                stop.set()
            return ANSWER

        async with serving(script) as server:
            plan = planned(1_000, gap_ms=20.0)
            sent, _ = await send(plan, server.url, stop=stop)
            assert 10 <= len(sent) < 1_000
            assert list(sent["seq"]) == list(plan["seq"][: len(sent)])
            # What was written at the very end the server may not have read any more; the rest it has.
            assert seen(server) <= wanted(plan[: len(sent)])
            assert len(server.bodies) >= (sent["status"] == 202).sum() > 0

    ended(run())


def test_enough_sends_nothing_more_and_every_answer_is_kept() -> None:
    """What had gone out by then is answered, and nothing that became due later is sent."""

    async def run() -> None:
        enough = asyncio.Event()

        def script(server: Server, number: int) -> bytes:
            if number == 9:
                enough.set()
            return ANSWER

        async with serving(script) as server:
            sent, _ = await send(planned(1_000, gap_ms=20.0), server.url, enough=enough)
            assert 10 <= len(sent) < 1_000
            assert set(sent["status"]) == {202}

    ended(run())


def test_a_plan_of_nothing_sends_nothing() -> None:
    """An empty part of a plan is no error."""
    assert ended(send(planned(0), "http://127.0.0.1:9")).reactions.empty


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://127.0.0.1:8000", "http://"])
def test_malformed_url_is_named(url: str) -> None:
    """The base URL is checked before anything is sent."""
    with pytest.raises(SettingError, match=r"give http://host:port"):
        ended(send(planned(1), url))


@given(st.lists(st.integers(0, 4_000_000_000 * NS_PER_S), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_bodies_carry_the_timestamp_that_names_the_reaction(times: list[int]) -> None:
    """Made in bulk, each body's timestamp is the one by which its record in Kafka is found again."""
    frame = pd.DataFrame({"user_id": "ada", "emoji_type": "😂", "t_intended_ns": np.array(times, dtype=np.int64)})
    assert [json.loads(body)["timestamp"] for body in bodies(frame)] == [timestamp_of(t_ns) for t_ns in times]


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_messages_are_split_however_they_arrive(contents: list[bytes], piece: int) -> None:
    """Cut anywhere, a stream of messages is split where each ends."""
    stream = b"".join(http1.post("/x", content) for content in contents)
    found = []
    received = b""
    for start in range(0, len(stream), piece):
        received += stream[start : start + piece]
        while (end := http1.split(received)[1]) > 0:
            found.append(received[:end])
            received = received[end:]
    assert received == b""
    assert found == [http1.post("/x", content) for content in contents]


def test_processes_follow_the_busiest_second() -> None:
    """One process as long as it keeps up, more for a peak above, never more than there are cores."""
    second = np.linspace(0, NS_PER_S - 1, PER_PROCESS_S + 1).astype(np.int64)
    slow = np.arange(0, 100 * NS_PER_S, NS_PER_S // 10)
    assert processes_for(slow, 8) == 1
    assert processes_for(np.sort(np.concatenate([slow, second])), 8) == 2
    assert processes_for(second, 1) == 1
    assert processes_for(second[:0], 8) == 1


def test_a_postponed_plan_is_the_same_plan_later() -> None:
    """There is time to start the sender, and no two reactions come to share a microsecond by the move."""
    asked_ns = time.time_ns()
    plan = poisson_plan(["solo"], 9_000.0, asked_ns, trigger_s=1.0, warm_up_triggers=0, measured_triggers=2, seed=1)
    later = postponed(plan, asked_ns)
    moved = (later["t_intended_ns"] - plan["t_intended_ns"]).unique()
    assert len(moved) == 1
    assert moved[0] % 1_000_000 == 0
    assert int(later["t_intended_ns"].iloc[0]) > time.time_ns() + NS_PER_S
    assert not (later["t_intended_ns"] // 1000).duplicated().any()
    pd.testing.assert_frame_equal(later.drop(columns="t_intended_ns"), plan.drop(columns="t_intended_ns"))


@contextmanager
def stub() -> Iterator[str]:
    """Yield the URL of a stub server in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.bench.stub_server"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def test_a_sender_is_scheduled_as_the_manifest_says(tmp_path: Path) -> None:
    """Where the system allows it a sender comes before every ordinary process; asking for that changes nothing here."""
    own = os.sched_getscheduler(0)
    said = scheduling()
    assert os.sched_getscheduler(0) == own
    with stub() as url, started(tmp_path, planned(1, lead_ms=60_000.0), url, 1) as sender:
        try:
            wanted = {"real-time": os.SCHED_RR, "ordinary": os.SCHED_OTHER}[said]
            deadline = time.monotonic() + 30
            while os.sched_getscheduler(sender.pid) != wanted:
                assert sender.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            sender.terminate()


def started(folder: Path, plan: pd.DataFrame, url: str, processes: int) -> subprocess.Popen[bytes]:
    """Start the load by its command line."""
    plan.to_parquet(folder / "plan.parquet", index=False)
    command = [sys.executable, "-m", "experiments.load", str(folder / "plan.parquet"), str(folder / "sent.parquet")]
    return subprocess.Popen([*command, url, "--processes", str(processes)], stderr=subprocess.PIPE)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_command_sends_the_whole_plan(tmp_path: Path, processes: int) -> None:
    """From one process or several, each row of the plan has its row of what was sent, and nothing else is left."""
    plan = poisson_plan(
        user_names(50), 300.0, time.time_ns(), trigger_s=1.0, warm_up_triggers=1, measured_triggers=1, seed=1
    )
    with stub() as url, started(tmp_path, plan, url, processes) as load:
        _, errors = load.communicate(timeout=240)
    assert (load.returncode, errors) == (0, b"")
    sent = pd.read_parquet(tmp_path / "sent.parquet")
    assert list(sent["seq"]) == list(plan["seq"])
    assert (sent["status"] == 202).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.parquet", "sent.parquet"]


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_keeps_what_was_sent(tmp_path: Path, processes: int) -> None:
    """A load that is ended writes what it has done, and ends well."""
    plan = planned(6_000, gap_ms=20.0, lead_ms=0.0)

    async def run() -> tuple[int, bytes, Server]:
        enough = asyncio.Event()

        def script(server: Server, number: int) -> bytes:
            if number == 300:
                enough.set()
            return ANSWER

        async with serving(script) as server:
            load = started(tmp_path, plan, server.url, processes)
            await enough.wait()
            load.send_signal(signal.SIGTERM)
            _, errors = await asyncio.to_thread(load.communicate, timeout=240)
            return load.returncode, errors, server

    status, errors, server = ended(run())
    assert (status, errors) == (0, b"")
    sent = pd.read_parquet(tmp_path / "sent.parquet")
    assert 300 < len(sent) < 6_000
    assert sent["seq"].is_monotonic_increasing
    assert not sent["seq"].duplicated().any()
    # What was written as the signal came may not have been read any more.
    assert len(server.bodies) <= len(sent)
    assert set(sent["status"]) <= {0, 202}
    assert (sent["status"] == 202).any()


def test_a_failed_sender_raises_and_the_rest_is_kept(tmp_path: Path) -> None:
    """When a sender is killed, the command says so and ends with status 1; the other one's rows are there."""
    with stub() as url, started(tmp_path, planned(4, lead_ms=10_000.0), url, 2) as load:

        def second() -> psutil.Process | None:
            children = psutil.Process(load.pid).children()
            return next((child for child in children if "1/2" in child.cmdline()), None)

        until(second, "both have started").kill()
        _, errors = load.communicate(timeout=240)
    assert load.returncode == 1
    assert b"the 2 senders ended with status [0, -9]" in errors
    assert list(pd.read_parquet(tmp_path / "sent.parquet")["seq"]) == [100, 102]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_wrong_url_is_refused_before_anything_starts(tmp_path: Path, processes: int) -> None:
    """One line with the remedy, and no file."""
    with started(tmp_path, planned(4), "nowhere", processes) as load:
        _, errors = load.communicate(timeout=240)
    assert load.returncode == 1
    assert errors == b"experiments.load: the URL of ingest is 'nowhere': give http://host:port\n"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.parquet"]
