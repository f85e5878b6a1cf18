"""A client: registers, and yields every window once and in order, across lost connections.

    async for window in Client.register("http://127.0.0.1:8080"):
        print(window.total)

`python -m pipeline.client URL` prints the windows as lines of JSON.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import get_args

import aiohttp

from pipeline.client.http import open_session
from pipeline.client.registration import Credentials
from pipeline.client.session import Reset, Session
from pipeline.client.transports import Batch
from pipeline.errors import ClientError, SettingError
from pipeline.messages import HighWater, Transport, Window, decode_window, decoder
from pipeline.sse import SseEvent

# The standard library's logging: unconfigured structlog would print to the output of the importing program.
log = logging.getLogger(__name__)

_decode_reset = decoder(Reset)


def _log_reset(reset: Reset) -> None:
    log.warning("windows after %s were missed: %s", reset.last_event_id, reset.reason)


class Client:
    """One viewer; iterate over it for windows.

    It reads only when the next window is requested, and has no task. So a slow reader is a slow client: the server cuts
    it off when its queue is full, and it resumes.
    """

    def __init__(
        self,
        session: Session,
        on_reset: Callable[[Reset], object],
        shared_http: aiohttp.ClientSession | None,
    ) -> None:
        self._session = session
        self._on_reset = on_reset
        self._shared_http = shared_http
        self._http: aiohttp.ClientSession | None = None
        self._newest = HighWater()
        self._pending: deque[SseEvent] = deque()

    @classmethod
    def register(
        cls,
        url: str,
        cluster: str | None = None,
        transport: Transport = "sse",
        *,
        on_reset: Callable[[Reset], object] = _log_reset,
        session: aiohttp.ClientSession | None = None,
    ) -> Client:
        """Return a client of the registry at `url`; it registers on first use.

        `async with` registers on entry and ends the registration on exit. A plain `async for` does both around its
        loop; after a `break`, the event loop ends the registration a moment later.

        `on_reset` is called when windows were missed and cannot be replayed, before the first window after the gap. By
        default it logs a warning; an exception from it ends the iteration. `session` is shared and stays open (see
        `pipeline.client.http.open_session`); by default the client opens its own.

        Raises SettingError for a transport other than `sse`, `websocket` or `poll`. Entering and iterating raise
        ClientError if the first registration fails or a server refuses permanently (wrong token, not a stream), and
        MessageError for an unreadable window. After any other error the client tries again, without limit: use
        `asyncio.timeout` to bound that. It registers again if the registry has lost its registration. The iteration
        ends when a server answers that the client was deleted (204).
        """
        if transport not in get_args(Transport):
            raise SettingError(f"transport is {transport!r}: choose one of {', '.join(get_args(Transport))}")
        return cls(Session(url.rstrip("/"), cluster, transport), on_reset, session)

    @property
    def credentials(self) -> Credentials:
        """The registration: id, token, cluster, and the subscriber assigned then. Raises ClientError without one."""
        if self._session.credentials is None:
            raise ClientError(f"not registered at {self._session.registry} now: enter the client first")
        return self._session.credentials

    async def __aenter__(self) -> Client:
        """Register. Raises ClientError."""
        self._http = self._shared_http or open_session()
        try:
            await self._session.start(self._http)
        except BaseException:
            await self._close_http()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End connection and registration; log it if the registry cannot end the registration."""
        try:
            await self._session.end()
        except ClientError as error:
            log.warning("a registration was not ended: %s", error)
        finally:
            await self._close_http()

    async def __aiter__(self) -> AsyncIterator[Window]:
        """Yield each window once, in order, from now on: within an epoch always a later one."""
        async with self._entered():
            while True:
                while self._pending:
                    window = self._new_window(self._pending.popleft())
                    if window is not None:
                        yield window
                batch = await self._session.read()
                if batch is None:
                    return
                self._pending.extend(batch.events)

    async def received(self) -> AsyncIterator[Batch]:
        """Yield all events as received, for measurements: one batch per read, with its time of receipt.

        Events are neither decoded nor filtered: a window that arrives twice is yielded twice. Besides the server's
        `window` and `reset` events there are `open` (a connection was opened; the time is that of the answer) and
        `error` (a connection was lost or failed; `data` is the reason). Raises the same errors as iterating.
        """
        async with self._entered():
            while (batch := await self._session.read()) is not None:
                yield batch

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[None]:
        """Enter the client for one loop, unless the caller has entered it."""
        if self._http is not None:
            yield
            return
        async with self:
            yield

    def _new_window(self, event: SseEvent) -> Window | None:
        """Return the window in `event`; None if there is none, or an old one."""
        if event.event == "reset":
            self._on_reset(_decode_reset(event.data.encode()))
        elif event.event == "window":
            window = decode_window(event.data.encode())
            if self._newest.is_new(window):
                self._newest.raise_to(window)
                return window
            log.debug("dropped %s, which was received before", event.id)
        return None

    async def _close_http(self) -> None:
        """Close the HTTP session unless it is shared."""
        http, self._http = self._http, None
        if http is not None and http is not self._shared_http:
            await http.close()
