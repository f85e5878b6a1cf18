"""`emostream watch` against a registry and a subscriber that follow a script: lines, JSON, a terminal, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from experiments.cli import __main__ as emostream
from experiments.cli import watch
from pipeline.client import Client
from tests.harness.processes import module, run_to_end
from tests.harness.stages.scripted_server import PATHS, Refuse, Scripted, Send, reset, window
from tests.harness.terminal import in_terminal

DEADLINE_S = 60
ALTERNATE, ORDINARY = "\x1b[?1049h", "\x1b[?1049l"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `scenario` within the deadline."""

    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(whole())


def command(url: str, *options: str) -> list[str]:
    """The command line of `emostream watch` for a registry."""
    return module("experiments.cli", "watch", "--url", url, *options)


async def printed(url: str, *options: str) -> tuple[int, str, str]:
    """Run it without a terminal until it ends; return its status and what it printed."""
    done = await asyncio.to_thread(run_to_end, command(url, *options))
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("transport", PATHS)
def test_without_a_terminal_each_window_is_a_line(transport: str) -> None:
    """Over every transport; a window that arrives twice is one line, a lost connection is on standard error."""

    async def scenario() -> None:
        first = [window(1), window(2)]
        # Of polls the HTTP library itself repeats one that is cut off.
        cut = [Send(first), Refuse(503)] if transport == "poll" else [Send(first, "cut", 1)]
        async with Scripted(*cut, Send([window(2), window(3, emoji="🎉")])) as server:
            status, out, err = await printed(server.url, "--transport", transport, "--windows", "3")
            assert status == 0, err
            assert [line.split("  ")[1:] for line in out.splitlines()] == [
                ["window 1", "38 in all", "😂 38"],
                ["window 2", "38 in all", "😂 38"],
                ["window 3", "38 in all", "🎉 38"],
            ]
            assert "reconnecting" in err
            assert "connected again" in err
            assert server.deleted == ["c1"]

    run(scenario)


def test_json_is_an_object_for_each_window() -> None:
    """As the subscriber sent it; missed windows are on standard error."""

    async def scenario() -> None:
        async with Scripted(Send([window(1), reset("too old", "e:1"), window(9)])) as server:
            status, out, err = await printed(server.url, "--json", "--windows", "2")
            assert status == 0, err
            assert [(each["window"], each["total"]) for each in map(json.loads, out.splitlines())] == [(1, 38), (9, 38)]
            assert err == "emostream watch: windows were missed\n"

    run(scenario)


def test_dumb_terminal_gets_lines() -> None:
    """It has no codes to place anything."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)])) as server:
            with in_terminal(command(server.url, "--windows", "1"), TERM="dumb") as terminal:
                assert await asyncio.to_thread(terminal.ended) == 0
                assert "window 1" in terminal.shown
                assert "\x1b" not in terminal.shown

    run(scenario)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_terminal_is_restored_at_the_end(signum: signal.Signals) -> None:
    """Ctrl-C or SIGTERM: status 0, the registration ended, cursor, wrapping, screen and modes as before."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)])) as server:
            with in_terminal(command(server.url)) as terminal:
                before = terminal.modes()
                await asyncio.to_thread(terminal.until, "window 1: 38 reactions")
                terminal.process.send_signal(signum)
                assert await asyncio.to_thread(terminal.ended) == 0
                assert server.deleted == ["c1"]
                for first, last in ((ALTERNATE, ORDINARY), (HIDDEN, SHOWN), (NO_WRAP, WRAP)):
                    assert terminal.shown.count(first) == 1
                    assert terminal.shown.rindex(first) < terminal.shown.rindex(last)
                assert terminal.modes() == before

    run(scenario)


def test_terminal_is_restored_at_an_error() -> None:
    """The error is a line on the ordinary screen, with status 1."""

    async def scenario() -> None:
        async with Scripted(Send([window(1), ("e:2", "window", b'{"not": "a window"}')])) as server:
            with in_terminal(command(server.url)) as terminal:
                assert await asyncio.to_thread(terminal.ended) == 1
                _, _, after = terminal.shown.rpartition(ORDINARY)
                assert "emostream watch: not a Window" in after

    run(scenario)


def test_error_while_drawing_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen that stands still would look like a quiet chain."""

    lost: list[str] = []

    class BrokenView:
        def opened(self) -> None:
            pass

        def lost(self, reason: str) -> None:
            lost.append(reason)

        async def keep_drawing(self) -> None:
            raise ZeroDivisionError

    async def scenario() -> None:
        async with Scripted(Send([])) as server:
            with pytest.raises(ZeroDivisionError):
                await watch._watch(Client.register(server.url), BrokenView(), None)  # type: ignore[arg-type]

    run(scenario)
    # It did not wait until the silent connection was given up.
    assert lost == []


def test_terminal_follows_its_size() -> None:
    """From eighty columns to twenty, where the words are shorter."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)])) as server:
            with in_terminal(command(server.url)) as terminal:
                await asyncio.to_thread(terminal.until, "window 1: 38 reactions")
                terminal.resize(20, 12)
                await asyncio.to_thread(terminal.until, "38, ")
                terminal.process.send_signal(signal.SIGINT)
                assert await asyncio.to_thread(terminal.ended) == 0

    run(scenario)


def test_lost_subscriber_is_shown_and_survived() -> None:
    """The next window arrives on the new connection."""

    async def scenario() -> None:
        async with Scripted(Send([window(1)], "cut", 300), Send([window(2)])) as server:
            with in_terminal(command(server.url)) as terminal:
                await asyncio.to_thread(terminal.until, "window 2: 38 reactions")
                await asyncio.to_thread(terminal.until, "reconnected 1×")
                terminal.process.send_signal(signal.SIGINT)
                assert await asyncio.to_thread(terminal.ended) == 0

    run(scenario)


def test_reader_that_ends_ends_the_command() -> None:
    """`emostream watch | head -n 1`: no traceback."""

    async def scenario() -> None:
        async with Scripted(Send([window(number) for number in range(1, 4000)])) as server:
            line = " ".join(command(server.url, "--json"))
            done = await asyncio.to_thread(run_to_end, ["bash", "-c", f"{line} | head -n 1"])
            assert (len(done.stdout.splitlines()), done.stderr) == (1, "")

    run(scenario)


def test_chain_that_is_not_up_is_one_line(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """By its run directory, or by an address where nothing listens."""
    with pytest.raises(SystemExit, match="has no running chain") as raised:
        emostream.main(["watch", "--run-dir", str(tmp_path)])
    assert "starts one" in str(raised.value.code)
    with pytest.raises(
        SystemExit, match=r"emostream watch: connection refused: no answer from http://127\.0\.0\.1:9\."
    ):
        emostream.main(["watch", "--url", "http://127.0.0.1:9"])
    with pytest.raises(SystemExit, match="--url is 'here': give the address of registry as http://host:port"):
        emostream.main(["watch", "--url", "here"])


def test_deleted_client_is_an_error() -> None:
    """The chain ended the registration: nothing will come."""

    async def scenario() -> None:
        async with Scripted(Refuse(204)) as server:
            status, _, err = await printed(server.url)
            assert (status, err.splitlines()[-1].startswith("emostream watch: the chain has ended")) == (1, True)

    run(scenario)
