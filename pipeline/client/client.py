"""A client: registers, and gives every window once and in order, whatever happens to its connection.

    async for window in Client.register("http://127.0.0.1:8080"):
        print(window.total)

`python -m pipeline.client URL` prints the windows as lines of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import get_args

import aiohttp

from pipeline import lifecycle, logs
from pipeline.client.http import open_session
from pipeline.client.registration import Credentials
from pipeline.client.session import Link, Reset
from pipeline.client.transports import Batch
from pipeline.errors import ClientError, SettingError
from pipeline.messages import HighWater, Transport, Window, decode_window, decoder, encode
from pipeline.sse import SseEvent

# The standard library's: structlog, where nobody has configured it, would print to the output of whoever imports this.
log = logging.getLogger(__name__)

_decode_reset = decoder(Reset)


def _say(reset: Reset) -> None:
    log.warning("windows after %s were missed: %s", reset.last_event_id, reset.reason)


class Client:
    """One viewer; iterating gives windows.

    It reads only when asked for a window and keeps no task. So a slow reader is a slow client, which the server cuts
    off once its queue is full and which then resumes.
    """

    def __init__(
        self,
        link: Link,
        on_reset: Callable[[Reset], object],
        session: aiohttp.ClientSession | None,
    ) -> None:
        self._link = link
        self._on_reset = on_reset
        self._given = session
        self._session: aiohttp.ClientSession | None = None
        self._marks = HighWater()
        self._waiting: deque[SseEvent] = deque()

    @classmethod
    def register(
        cls,
        url: str,
        cluster: str | None = None,
        transport: Transport = "sse",
        *,
        on_reset: Callable[[Reset], object] = _say,
        session: aiohttp.ClientSession | None = None,
    ) -> Client:
        """Return a client of the registry at `url`; it registers when it is first used.

        `async with` registers on entering and ends the registration on leaving. A bare `async for` does both around
        its loop; left by `break`, it ends the registration a moment later, in the event loop's own time.

        `on_reset` is called where windows were missed for good, before the first one after the gap is given; by
        default that is logged as a warning. What it raises ends the iteration. `session` is shared and left open (see
        `pipeline.client.http.open_session`); by default the client has one of its own.

        Raises SettingError for a transport that is none of `sse`, `websocket` and `poll`. Entering and iterating
        raise ClientError when the client cannot be registered at first, and when it is refused for good (its token is
        not taken, an answer is no stream); MessageError for a window that is none. Whatever else happens is tried
        again for as long as it takes: bound that with `asyncio.timeout`. A registration that the registry no longer
        knows is made anew. The iteration ends when a server says that the client was deleted (204).
        """
        if transport not in get_args(Transport):
            raise SettingError(f"transport is {transport!r}: choose one of {', '.join(get_args(Transport))}")
        return cls(Link(url.rstrip("/"), cluster, transport), on_reset, session)

    @property
    def ticket(self) -> Credentials:
        """The registration: id, token, cluster, and the subscriber at that time. Raises ClientError without one."""
        if self._link.ticket is None:
            raise ClientError(f"not registered at {self._link.registry} now: enter the client first")
        return self._link.ticket

    async def __aenter__(self) -> Client:
        """Register. Raises ClientError."""
        self._session = self._given or open_session()
        try:
            await self._link.begin(self._session)
        except BaseException:
            await self._let_go()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End connection and registration; that the registry did not take the latter is logged."""
        try:
            await self._link.end()
        except ClientError as error:
            log.warning("a registration was not ended: %s", error)
        finally:
            await self._let_go()

    async def __aiter__(self) -> AsyncIterator[Window]:
        """Give each window once, in order, from now on: of one epoch always a later one, never an earlier."""
        async with self._used():
            while True:
                while self._waiting:
                    window = self._take(self._waiting.popleft())
                    if window is not None:
                        yield window
                batch = await self._link.more()
                if batch is None:
                    return
                self._waiting.extend(batch.events)

    async def received(self) -> AsyncIterator[Batch]:
        """Give everything as it comes, for whoever measures: one batch a read, with the time of its receipt.

        Nothing is decoded or left out: a window that came twice is there twice. Besides the server's `window` and
        `reset` there are `open` (a connection stands; the time is that of its answer) and `error` (it is lost, or
        could not be made; `data` says why). Raises as iterating does.
        """
        async with self._used():
            while (batch := await self._link.more()) is not None:
                yield batch

    @asynccontextmanager
    async def _used(self) -> AsyncIterator[None]:
        """Enter for the time of one loop, unless whoever loops has done so."""
        if self._session is not None:
            yield
            return
        async with self:
            yield

    def _take(self, event: SseEvent) -> Window | None:
        """Return the window to give for `event`, if any."""
        if event.event == "reset":
            self._on_reset(_decode_reset(event.data.encode()))
        elif event.event == "window":
            window = decode_window(event.data.encode())
            if self._marks.is_new(window):
                self._marks.raise_to(window)
                return window
            log.debug("dropped %s, which was given before", event.id)
        return None

    async def _let_go(self) -> None:
        """Close the session if it is the client's own."""
        session, self._session = self._session, None
        if session is not None and session is not self._given:
            await session.close()


async def watch(url: str, cluster: str | None, transport: Transport) -> None:
    """Print every window as a line of JSON until SIGTERM or Ctrl-C, then end the registration."""
    task = asyncio.current_task()
    assert task is not None
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    async with Client.register(url, cluster, transport) as client:
        async for window in client:
            print(encode(window).decode(), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m pipeline.client`."""
    line = argparse.ArgumentParser(
        prog="python -m pipeline.client", description="Become a client and print each window as a line of JSON."
    )
    line.add_argument("url", help="base URL of the registry")
    line.add_argument("--cluster", help="the cluster to watch; default: the one with most room")
    line.add_argument("--transport", choices=get_args(Transport), default="sse", help="default: %(default)s")
    options = line.parse_args(argv)
    logs.configure("client")
    try:
        with suppress(asyncio.CancelledError):
            lifecycle.run_main(
                "pipeline.client", lambda: asyncio.run(watch(options.url, options.cluster, options.transport))
            )
    except BrokenPipeError:
        # Whoever read has had enough; Python would complain once more when it flushes the output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
