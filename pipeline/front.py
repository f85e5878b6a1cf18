"""The front of a stage under Granian (RSGI): reads every body on the event loop, so that a slow one holds no thread.

A request is complete when Flask gets it, in one of a fixed number of threads.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from flask import Flask
from granian.rsgi import ProtocolClosed, ProtocolError, Scope  # type: ignore[attr-defined]
from werkzeug.test import run_wsgi_app

from pipeline.flask_answers import FAILED
from pipeline.origins import Origins
from pipeline.problems import CONTENT_TYPE, Refusal
from pipeline.rate_limit import sender_of

BODY_S = 10.0
"""How long a body may take."""
UNFINISHED_MAX = 1024
"""Bodies of one address that a worker reads at a time. Most bodies come with their head, and never count for long."""
DROPPED_MAX_BYTES = 4 << 20
"""A body that is too large is read and dropped up to this size: otherwise its sender may not see the answer."""


class Connection(Protocol):
    """What is used of Granian's protocol object: the body, whole or in pieces, and the answer."""

    async def __call__(self) -> bytes:
        """Return the body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the body piece by piece."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""


class Front:
    """One worker's RSGI application before `app`.

    It takes bodies of up to `body_max_bytes`; of a larger one `app` gets a part, and the size. `refused` is called with
    each refusal that the front answers itself. An address is that of the connection; behind `proxies` proxies it is the
    one that the first of them named in X-Forwarded-For.
    """

    def __init__(
        self,
        app: Flask,
        origins: Origins,
        *,
        threads: int,
        body_max_bytes: int,
        refused: Callable[[Refusal], object],
        proxies: int = 0,
    ) -> None:
        self.app = app
        self._origins = origins
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="flask")
        self._body_max_bytes = body_max_bytes
        self._refused = refused
        self._proxies = proxies
        self._unfinished: Counter[str] = Counter()

    async def __rsgi__(self, scope: Scope, connection: Connection) -> None:
        """Answer one request."""
        try:
            self._origins.check_name(scope.headers.get("host", ""))
            body, size = await self._read(scope, connection)
        except Refusal as refusal:
            if scope.method == "POST" and not is_of_page(scope):
                # Without a thread: there may be a thousand of them at once.
                self.refuse(connection, refusal)
            else:
                await self.by_flask(scope, connection, b"", 0, refusal)
        except (ProtocolClosed, ProtocolError):
            # The client has gone before its body was complete.
            return
        else:
            await self.answer(scope, connection, body, size)

    async def answer(self, scope: Scope, connection: Connection, body: bytes, size: int) -> None:
        """Answer a request whose body has been read, and has `size` bytes."""
        await self.by_flask(scope, connection, body, size)

    def refuse(self, connection: Connection, refusal: Refusal) -> None:
        """Answer with a problem document, without Flask."""
        self._refused(refusal)
        answer = [*refusal.headers.items(), ("content-type", CONTENT_TYPE)]
        connection.response_bytes(refusal.status, answer, refusal.body())

    async def by_flask(
        self, scope: Scope, connection: Connection, body: bytes, size: int, failure: Exception | None = None
    ) -> None:
        """Let Flask answer, with `failure` if it is given."""
        environ = self._environ(scope, body, size) | {FAILED: failure}
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, environ)
        connection.response_bytes(*answer)

    def address(self, scope: Scope) -> str:
        """Return the address that a request comes from."""
        if self._proxies:
            # Each proxy appends the address of its client, also as a header of its own.
            given = [value for name, value in scope.headers.items() if name == "x-forwarded-for"]
            named = ",".join(given).split(",")
            if len(named) >= self._proxies and (address := named[-self._proxies].strip()):
                return address
        address, _, _ = scope.client.rpartition(":")
        return str(address.strip("[]"))

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
        sender = sender_of(self.address(scope))
        if self._unfinished[sender] >= UNFINISHED_MAX:
            raise too_many_unfinished(sender)
        self._unfinished[sender] += 1
        try:
            async with asyncio.timeout(BODY_S):
                if length is not None and declared <= self._body_max_bytes:
                    body = await connection()
                    return body, len(body)
                return await self._read_in_pieces(connection)
        except TimeoutError:
            raise body_too_slow() from None
        finally:
            self._unfinished[sender] -= 1
            if not self._unfinished[sender]:
                del self._unfinished[sender]

    async def _read_in_pieces(self, connection: Connection) -> tuple[bytes, int]:
        kept, size = bytearray(), 0
        async for piece in connection:
            size += len(piece)
            if size <= self._body_max_bytes:
                kept += piece
            elif size > DROPPED_MAX_BYTES:
                break
        return bytes(kept), size

    def _answer(self, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        pieces: Iterable[bytes]
        pieces, status, headers = run_wsgi_app(self.app.wsgi_app, environ, buffered=True)
        return int(status.partition(" ")[0]), list(headers), b"".join(pieces)

    def _environ(self, scope: Scope, body: bytes, size: int) -> dict[str, Any]:
        """Return the WSGI environment (PEP 3333) of a request whose body has been read."""
        host, _, port = scope.server.rpartition(":")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": scope.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": _latin(scope.path),
            "QUERY_STRING": _latin(scope.query_string),
            "SERVER_NAME": host,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
            "REMOTE_ADDR": self.address(scope),
            "REMOTE_PORT": scope.client.rpartition(":")[2],
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
        # The body is whole, whatever way it came: its size says if it is too large.
        for name in ("HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
            environ.pop(name, None)
        environ["CONTENT_LENGTH"] = str(size)
        return environ


def is_of_page(scope: Scope) -> bool:
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


def _latin(text: str) -> str:
    """Return text of a request's line as PEP 3333 wants it: each byte of its UTF-8 as one character."""
    return text.encode().decode("latin-1")
