"""Ingest's front: answers `POST /reactions` of programs on the event loop, and leaves the rest to Flask."""

from __future__ import annotations

import asyncio

from flask import Flask
from granian.rsgi import Scope

from pipeline.front import Connection, Front, is_of_page
from pipeline.ingest.pulse import Pulses
from pipeline.ingest.reactions import JSON, Reactions
from pipeline.problems import Refusal

ACCEPTED_HEADERS = [("content-type", JSON)]


class ReactionsFront(Front):
    """One worker's RSGI application: `app` is the whole of ingest, `reactions` what its `POST /reactions` does.

    `pulses` shows the main process that the event loop and the flusher go on.
    """

    def __init__(self, app: Flask, reactions: Reactions, threads: int, pulses: Pulses | None = None) -> None:
        values = reactions.values
        super().__init__(
            app,
            values.page_rule(),
            threads=threads,
            body_max_bytes=values.body_max_bytes,
            refused=lambda refusal: reactions.flusher.meters.refused(refusal.title),
            proxies=values.proxies,
        )
        self._reactions = reactions
        self._pulses = pulses
        self._beating: asyncio.Task[None] | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to beat; the server calls this once."""
        if self._pulses is not None:
            self._beating = loop.create_task(self._pulses.keep_beating(self._reactions.flusher.turns))

    async def answer(self, scope: Scope, connection: Connection, body: bytes, size: int) -> None:
        """Take the reactions of a program; Flask answers all other requests."""
        if scope.method == "POST" and scope.path == "/reactions" and not is_of_page(scope):
            await self._react(scope, connection, body, size)
        else:
            await self.by_flask(scope, connection, body, size)

    async def _react(self, scope: Scope, connection: Connection, body: bytes, size: int) -> None:
        given = scope.headers.get
        headers = {
            "CONTENT_TYPE": given("content-type", ""),
            "HTTP_CONTENT_ENCODING": given("content-encoding", ""),
            "HTTP_IDEMPOTENCY_KEY": given("idempotency-key"),
            "REMOTE_ADDR": self.address(scope),
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
            self.refuse(connection, refusal)
        except Exception as error:
            # A mistake in this program: Flask logs it, and answers 500.
            await self.by_flask(scope, connection, b"", 0, error)
        else:
            connection.response_bytes(202, ACCEPTED_HEADERS, taken.answer)
