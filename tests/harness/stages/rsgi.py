"""Requests to a front as Granian gives them: a scope, and a connection whose body may come slowly or not at all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from pipeline.front import Front


class Answer(NamedTuple):
    """What was answered; the names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        return document


class Connection:
    """Stands for Granian's protocol object: a body in pieces, after which `then` is awaited, and its answer."""

    def __init__(self, pieces: tuple[bytes, ...], then: Callable[[], Awaitable[object]]) -> None:
        self._pieces = pieces
        self._then = then
        self.read = 0
        self.answer: Answer | None = None

    async def __call__(self) -> bytes:
        """Return the body once it is complete."""
        return b"".join([piece async for piece in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the pieces."""
        for piece in self._pieces:
            self.read += len(piece)
            yield piece
        await self._then()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Take the answer."""
        assert self.answer is None
        self.answer = Answer(status, {name.lower(): value for name, value in headers}, body)


async def _at_once() -> None:
    """Do nothing: the body is complete."""


async def exchange(
    front: Front,
    *pieces: bytes,
    method: str = "POST",
    path: str = "/reactions",
    query: str = "",
    address: str = "192.0.2.1",
    then: Callable[[], Awaitable[object]] = _at_once,
    **headers: str,
) -> Connection:
    """Send a request; its length is that of the pieces unless `content_length` says otherwise, "" for chunks."""
    given = {"host": "127.0.0.1:8000", "content-type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    if pieces:
        given.setdefault("content-length", str(sum(map(len, pieces))))
    if given.get("content-length") == "":
        given = {**given, "transfer-encoding": "chunked"}
        del given["content-length"]
    scope: Any = SimpleNamespace(
        method=method, path=path, query_string=query, http_version="1.1", scheme="http",
        client=f"{address}:50000", server="127.0.0.1:8000", headers=given,
    )  # fmt: skip
    connection = Connection(pieces, then)
    await front.__rsgi__(scope, connection)
    return connection


async def ask(front: Front, *pieces: bytes, **options: Any) -> Answer | None:
    """Return the answer of an exchange."""
    return (await exchange(front, *pieces, **options)).answer
