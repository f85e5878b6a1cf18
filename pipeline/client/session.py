"""A client's link to its windows: registers, connects, and comes back when it is cut."""

from __future__ import annotations

import asyncio
import logging
import time

import aiohttp
import msgspec

from pipeline.client import backoff
from pipeline.client.http import SILENT_S
from pipeline.client.registration import Credentials, lead, leave, register
from pipeline.client.transports import OPEN, UNKNOWN_ID, Batch, Connection
from pipeline.errors import ClientError
from pipeline.messages import Transport, encode
from pipeline.sse import SseEvent

# The standard library's: structlog, where nobody has configured it, would print to the output of whoever imports this.
log = logging.getLogger(__name__)

# While the registry answers, it takes no longer than silent_s (5 s) to lead elsewhere: long waits would miss that.
LED_WAIT_MAX_S = 2.0
WAIT_MAX_S = 30.0
# Said aloud once an outage: one lost connection is nothing to worry about.
LOUD_AFTER = 3
# Answers that another attempt may change; a 404 is final only if the registry gives it.
_PASSING = frozenset({404, 408, 410, 425, 429})
_GONE = frozenset({404, 410})
_STOP = 204


class Reset(msgspec.Struct, frozen=True):
    """Windows were missed for good: those after `last_event_id`, the last one had, up to `resumes_after`.

    `resumes_after` is empty where the server did not say, and `begin:0` where it has no window yet.
    """

    reason: str
    last_event_id: str
    resumes_after: str


class Link:
    """Holds a registration and at most one connection; reads only when asked to, and has no task."""

    def __init__(self, registry: str, cluster: str | None, transport: Transport) -> None:
        self.registry = registry
        self.ticket: Credentials | None = None
        self._cluster = cluster
        self._transport = transport
        self._session: aiohttp.ClientSession | None = None
        self._connection: Connection | None = None
        self._after = ""
        self._retry_ms: int | None = None
        self._led = False
        self._failures = 0
        self._opened_s = self._due_s = 0.0

    async def begin(self, session: aiohttp.ClientSession) -> None:
        """Register. Raises ClientError."""
        self.ticket = await register(session, self.registry, self._cluster, self._transport)
        self._session = session

    async def end(self) -> None:
        """Close the connection and end the registration. Raises ClientError when the registry does not take that.

        Whoever waits in `more` is told that it is over. `begin` may follow, and then goes on after the last id.
        """
        session, self._session = self._session, None
        ticket, self.ticket = self.ticket, None
        await self._disconnect()
        if session is not None and ticket is not None:
            await leave(session, self.registry, ticket)

    async def more(self) -> Batch | None:
        """Return what the next read brings, connecting first if need be; None when it is over.

        A new connection is an event `open`, a lost or failed one an event `error` that says why. Raises ClientError
        for a refusal that no other attempt would change. Being cancelled loses nothing.
        """
        if self._session is None:
            return None
        try:
            if self._connection is None:
                await self._connect()
                opened_ns = time.time_ns()
                return None if self._connection is None else Batch(opened_ns, [self._note("open")])
            batch = await self._connection.read()
        except ClientError as error:
            return await self._lost(error)
        except (aiohttp.ClientError, OSError) as error:
            return await self._lost(ClientError(f"lost the connection: {str(error) or type(error).__name__}"))
        if batch.events:
            self._failures = 0
        return batch

    async def _connect(self) -> None:
        """Connect to wherever the client's stream is now, once it is time for that; do not if it is over by then."""
        self._led = False
        await asyncio.sleep(self._due_s - time.monotonic())
        session = self._session
        if session is None:
            return
        if self.ticket is None:
            self.ticket = await register(session, self.registry, self._cluster, self._transport)
        headers = self.ticket.headers
        place = await lead(session, self.ticket)
        self._led = True
        self._connection = await OPEN[self._transport](session, place, headers, self._after, self._retry_ms)
        self._opened_s = time.monotonic()
        if self._session is None:
            # Ended meanwhile, on a session that others go on using.
            await self._disconnect()

    async def _disconnect(self) -> None:
        """Close the connection, remembering where it ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._after, self._retry_ms = connection.after, connection.retry_ms
            await connection.close()

    async def _lost(self, error: ClientError) -> Batch | None:
        """Decide what follows from a lost connection or a failed attempt. Raises `error` if nothing can."""
        received_ns = time.time_ns()
        if self._connection is not None and time.monotonic() - self._opened_s > SILENT_S:
            self._failures = 0
        await self._disconnect()
        status = error.status
        if self._session is None or status == _STOP:
            self._session = self.ticket = None
            return None
        if status == UNKNOWN_ID and self._after:
            return Batch(received_ns, [self._begin_anew(error)])
        if status is not None and (status == 200 or 400 <= status < 500) and status not in _PASSING:
            raise error
        if status in _GONE and not self._led:
            self.ticket = None
        base_s = backoff.BASE_S if self._retry_ms is None else self._retry_ms / 1000
        cap_s = LED_WAIT_MAX_S if self._led else WAIT_MAX_S
        wait_s = backoff.wait_s(self._failures, base_s, cap_s, error.retry_after_s)
        self._due_s = time.monotonic() + wait_s
        self._failures += 1
        level = logging.WARNING if self._failures == LOUD_AFTER else logging.INFO
        log.log(level, "%s; attempt %d in %.1f s", error, self._failures, wait_s)
        return Batch(received_ns, [self._note("error", str(error))])

    def _begin_anew(self, error: ClientError) -> SseEvent:
        """Forget an id that the server never gave, and say what that means."""
        reset = Reset(error.detail or str(error), self._after, "")
        self._after = ""
        return self._note("reset", encode(reset).decode())

    def _note(self, event: str, data: str = "") -> SseEvent:
        return SseEvent(self._after, event, data, self._retry_ms)
