"""A client's session: registers, connects, and reconnects after a lost connection."""

from __future__ import annotations

import asyncio
import logging
import time

import aiohttp
import msgspec

from pipeline import backoff
from pipeline.client.http import SILENT_S
from pipeline.client.registration import Credentials, redirect, register, unregister
from pipeline.client.transports import CONNECT, UNKNOWN_ID, Batch, EventConnection
from pipeline.errors import ClientError, plain_reason
from pipeline.messages import Transport, encode
from pipeline.sse import SseEvent

# The standard library's logging: unconfigured structlog would print to the output of the importing program.
log = logging.getLogger(__name__)

# After silent_s (5 s) the registry redirects to a live subscriber: longer waits would delay that.
REDIRECTED_WAIT_MAX_S = 2.0
WAIT_MAX_S = 30.0
# One lost connection is normal: a warning comes with this failure in a row, once per outage.
WARN_AT_FAILURE = 3
# Refusals that may pass; a 404 is final only from the registry.
_PASSING = frozenset({404, 408, 410, 425, 429})
_GONE = frozenset({404, 410})
_STOP = 204


class Reset(msgspec.Struct, frozen=True):
    """Windows were missed and cannot be replayed: those after `last_event_id`, the last received, to `resumes_after`.

    `resumes_after` is empty if the server did not name it, and `earliest` if the server has no window yet.
    """

    reason: str
    last_event_id: str
    resumes_after: str


class Session:
    """Holds a registration and at most one connection; reads only on request, and has no task."""

    def __init__(self, registry: str, cluster: str | None, transport: Transport) -> None:
        self.registry = registry
        self.credentials: Credentials | None = None
        self._cluster = cluster
        self._transport = transport
        self._http: aiohttp.ClientSession | None = None
        self._connection: EventConnection | None = None
        self._after = ""
        self._retry_ms: int | None = None
        self._redirected = False
        self._failures = 0
        self._opened_s = self._due_s = 0.0

    async def start(self, http: aiohttp.ClientSession) -> None:
        """Register. Raises ClientError."""
        self.credentials = await register(http, self.registry, self._cluster, self._transport)
        self._http = http

    async def end(self) -> None:
        """Close the connection and end the registration. Raises ClientError if the registry cannot end it.

        A pending `read` returns None. `start` may follow, and resumes after the last id.
        """
        http, self._http = self._http, None
        credentials, self.credentials = self.credentials, None
        await self._disconnect()
        if http is not None and credentials is not None:
            await unregister(http, self.registry, credentials)

    async def read(self) -> Batch | None:
        """Return the next events, after connecting if necessary; None once the session has ended.

        A new connection gives an event `open`, a lost or failed one an event `error` with the reason. Raises
        ClientError for a permanent refusal. Cancelling loses nothing.
        """
        if self._http is None:
            return None
        try:
            if self._connection is None:
                await self._connect()
                opened_ns = time.time_ns()
                return None if self._connection is None else Batch(opened_ns, [self._event("open")])
            batch = await self._connection.read()
        except ClientError as error:
            return await self._after_failure(error)
        except (aiohttp.ClientError, OSError) as error:
            return await self._after_failure(ClientError(f"lost the connection: {plain_reason(error)}"))
        if batch.events:
            self._failures = 0
        return batch

    async def _connect(self) -> None:
        """Wait until the next attempt is due, then connect to the client's subscriber; do not if the session ended."""
        self._redirected = False
        await asyncio.sleep(self._due_s - time.monotonic())
        http = self._http
        if http is None:
            return
        if self.credentials is None:
            self.credentials = await register(http, self.registry, self._cluster, self._transport)
        headers = self.credentials.headers
        url = await redirect(http, self.credentials)
        self._redirected = True
        self._connection = await CONNECT[self._transport](http, url, headers, self._after, self._retry_ms)
        self._opened_s = time.monotonic()
        if self._http is None:
            # The session ended meanwhile; its HTTP session may be shared and stay open.
            await self._disconnect()

    async def _disconnect(self) -> None:
        """Close the connection and remember where it ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._after, self._retry_ms = connection.after, connection.retry_ms
            await connection.close()

    async def _after_failure(self, error: ClientError) -> Batch | None:
        """Decide what follows a lost connection or a failed attempt. Raises `error` if it is permanent."""
        received_ns = time.time_ns()
        if self._connection is not None and time.monotonic() - self._opened_s > SILENT_S:
            self._failures = 0
        await self._disconnect()
        status = error.status
        if self._http is None or status == _STOP:
            self._http = self.credentials = None
            return None
        if status == UNKNOWN_ID and self._after:
            return Batch(received_ns, [self._forget_last_id(error)])
        if status is not None and (status == 200 or 400 <= status < 500) and status not in _PASSING:
            raise error
        if status in _GONE and not self._redirected:
            self.credentials = None
        base_s = backoff.BASE_S if self._retry_ms is None else self._retry_ms / 1000
        cap_s = REDIRECTED_WAIT_MAX_S if self._redirected else WAIT_MAX_S
        wait_s = backoff.wait_s(self._failures, base_s, cap_s, error.retry_after_s)
        self._due_s = time.monotonic() + wait_s
        self._failures += 1
        level = logging.WARNING if self._failures == WARN_AT_FAILURE else logging.INFO
        log.log(level, "%s; attempt %d in %.1f s", error, self._failures, wait_s)
        return Batch(received_ns, [self._event("error", str(error))])

    def _forget_last_id(self, error: ClientError) -> SseEvent:
        """Forget an id that the server never gave; return the reset that reports the possible gap."""
        reset = Reset(error.detail or str(error), self._after, "")
        self._after = ""
        return self._event("reset", encode(reset).decode())

    def _event(self, event: str, data: str = "") -> SseEvent:
        return SseEvent(self._after, event, data, self._retry_ms)
