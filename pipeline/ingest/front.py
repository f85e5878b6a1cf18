"""Ingest's front under Granian (RSGI): reads every body on the event loop, so that a slow one holds no thread.

`POST /reactions` from a program is answered here. Every other request is complete when Flask gets it: those of pages,
which name an `Origin`, and all other routes.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from flask import Flask
from granian.rsgi import ProtocolClosed, ProtocolError, Scope  # type: ignore[attr-defined]
from werkzeug.test import run_wsgi_app

from pipeline.ingest.app import FAILED
from pipeline.ingest.pulse import Pulses
from pipeline.ingest.reactions import JSON, Reactions
from pipeline.problems import CONTENT_TYPE, Refusal

BODY_S = 10.0
"""How long a body may take."""
UNFINISHED_MAX = 1024
"""Bodies of one address that a worker reads at a time. Most bodies come with their head, and never count for long."""
DROPPED_MAX_BYTES = 4 << 20
"""A body that is too large is read and dropped up to this size: otherwise its sender may not see the answer."""
ACCEPTED_HEADERS = [("content-type", JSON)]


class Connection(Protocol):
    """What is used of Granian's protocol object: the body, whole or in pieces, and the answer."""

    async def __call__(self) -> bytes:
        """Return the body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the body piece by piece."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""


class Front:
    """One worker's RSGI application: `app` is the whole of ingest, `reactions` what its `POST /reactions` does.

    `pulses` shows the main process that the event loop goes on.
    """

    def __init__(self, app: Flask, reactions: Reactions, threads: int, pulses: Pulses | None = None) -> None:
        self.app = app
        self._pulses = pulses
        self._beating: asyncio.Task[None] | None = None
        self._reactions = reactions
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="flask")
        self._origins = reactions.values.page_rule()
        self._unfinished: Counter[str] = Counter()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to beat; the server calls this once."""
        if self._pulses is not None:
            self._beating = loop.create_task(self._pulses.keep_beating())

    async def __rsgi__(self, scope: Scope, connection: Connection) -> None:
        """Answer one request."""
        try:
            self._origins.check_name(scope.headers.get("host", ""))
            body, size = await self._read(scope, connection)
        except Refusal as refusal:
            if scope.method == "POST" and not _is_of_page(scope):
                # Without a thread: there may be a thousand of them at once.
                self._refuse(connection, refusal)
            else:
                await self._by_flask(scope, connection, b"", 0, refusal)
        except (ProtocolClosed, ProtocolError):
            # The client has gone before its body was complete.
            return
        else:
            if scope.method == "POST" and scope.path == "/reactions" and not _is_of_page(scope):
                await self._react(scope, connection, body, size)
            else:
                await self._by_flask(scope, connection, body, size)

    async def _react(self, scope: Scope, connection: Connection, body: bytes, size: int) -> None:
        given = scope.headers.get
        headers = {
            "CONTENT_TYPE": given("content-type", ""),
            "HTTP_CONTENT_ENCODING": given("content-encoding", ""),
            "HTTP_IDEMPOTENCY_KEY": given("idempotency-key"),
        }
        try:
            taken = self._reactions.take(body, size, headers)
            if self._reactions.durable:
                # Not `wait_for`: it would cancel the future, which all requests of a flush share.
                flushed = asyncio.wrap_future(taken.flushed)
                await asyncio.wait((flushed,), timeout=self._reactions.durable_wait_s)
                if not flushed.done():
                    raise self._reactions.not_acknowledged()
                taken.check(flushed.result())
        except Refusal as refusal:
            self._refuse(connection, refusal)
        except Exception as error:
            # A mistake in this program: Flask logs it, and answers 500.
            await self._by_flask(scope, connection, b"", 0, error)
        else:
            connection.response_bytes(202, ACCEPTED_HEADERS, taken.answer)

    def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        self._reactions.flusher.meters.refused(refusal.title)
        answer = [*refusal.headers.items(), ("content-type", CONTENT_TYPE)]
        connection.response_bytes(refusal.status, answer, refusal.body())

    async def _read(self, scope: Scope, connection: Connection) -> tuple[bytes, int]:
        """Return the body, and its size in bytes as far as it is known. Of one that is too large, it returns a part.

        Raises Refusal: 408 after BODY_S, 503 if the address has too many unfinished ones.
        """
        length = scope.headers.get("content-length")
        if length is None and "transfer-encoding" not in scope.headers:
            return b"", 0
        declared = int(length or 0)
        if declared > DROPPED_MAX_BYTES:
            return b"", declared
        address = scope.client.rpartition(":")[0]
        if self._unfinished[address] >= UNFINISHED_MAX:
            raise too_many_unfinished(address)
        self._unfinished[address] += 1
        try:
            async with asyncio.timeout(BODY_S):
                if length is not None and declared <= self._reactions.values.body_max_bytes:
                    body = await connection()
                    return body, len(body)
                return await self._read_in_pieces(connection)
        except TimeoutError:
            raise body_too_slow() from None
        finally:
            self._unfinished[address] -= 1
            if not self._unfinished[address]:
                del self._unfinished[address]

    async def _read_in_pieces(self, connection: Connection) -> tuple[bytes, int]:
        kept, size = bytearray(), 0
        async for piece in connection:
            size += len(piece)
            if size <= self._reactions.values.body_max_bytes:
                kept += piece
            elif size > DROPPED_MAX_BYTES:
                break
        return bytes(kept), size

    async def _by_flask(
        self, scope: Scope, connection: Connection, body: bytes, size: int, failure: Exception | None = None
    ) -> None:
        environ = _environ(scope, body, size) | {FAILED: failure}
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, environ)
        connection.response_bytes(*answer)

    def _answer(self, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        pieces: Iterable[bytes]
        pieces, status, headers = run_wsgi_app(self.app.wsgi_app, environ, buffered=True)
        return int(status.partition(" ")[0]), list(headers), b"".join(pieces)


def _is_of_page(scope: Scope) -> bool:
    """Return whether Flask has to answer: a page needs its headers, and a WebSocket's handshake an explanation."""
    return "origin" in scope.headers or "upgrade" in scope.headers


def body_too_slow() -> Refusal:
    """Return the refusal of a body that was not complete within BODY_S."""
    return Refusal(
        408,
        "Body too slow",
        f"the body was not complete within {BODY_S:g} s: send it at once, or split it",
        headers={"Connection": "close"},
    )


def too_many_unfinished(address: str) -> Refusal:
    """Return the refusal of a body of an address that has UNFINISHED_MAX of them."""
    return Refusal(
        503,
        "Too many unfinished requests",
        f"{UNFINISHED_MAX} requests from {address} have not sent their whole body: finish some of them, then try again",
        headers={"Retry-After": "1"},
    )


def _environ(scope: Scope, body: bytes, size: int) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request whose body has been read."""
    host, _, port = scope.server.rpartition(":")
    address, _, client_port = scope.client.rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": address,
        "REMOTE_PORT": client_port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        key = f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ.pop("HTTP_CONTENT_LENGTH", None)
    environ["CONTENT_LENGTH"] = str(size)
    return environ
