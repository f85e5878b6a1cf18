"""Clients that take a server's time: requests whose bodies come drop by drop, and connections that say nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from experiments.load.sender import place_of

BODIES, SILENT = 500, 2_000
OPEN_S = 10.0
DROP_S = 1.0
HEAD = "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{"


@contextmanager
def held(url: str, bodies: int = BODIES, silent: int = SILENT, path: str = "/reactions") -> Iterator[None]:
    """Hold so many of both open to the stage at `url` meanwhile; a body that the server gives up is begun again.

    The bodies are of requests to `path`.

    Raises SettingError for another form of URL, OSError if the server does not take them at first.
    """
    host, port, _ = place_of(url)
    ending = threading.Event()
    with ExitStack() as stack:
        for _ in range(silent):
            stack.enter_context(socket.create_connection((host, port), OPEN_S))
        dripping = [_Body(host, port, (HEAD % path).encode()) for _ in range(bodies)]
        for body in dripping:
            stack.callback(body.close)
            body.begin()
        dropping = threading.Thread(target=_drop, args=(dripping, ending), name="slow-bodies", daemon=True)
        dropping.start()
        try:
            yield
        finally:
            ending.set()
            dropping.join()


def _drop(bodies: list[_Body], ending: threading.Event) -> None:
    while not ending.wait(DROP_S):
        for body in bodies:
            # A server that takes no more may be what is tested; the next turn tries again.
            with suppress(OSError):
                body.drop()


class _Body:
    """One request whose body does not end."""

    def __init__(self, host: str, port: int, head: bytes) -> None:
        self._address = host, port
        self._head = head
        self._socket: socket.socket | None = None

    def begin(self) -> None:
        self.close()
        self._socket = socket.create_connection(self._address, OPEN_S)
        self._socket.sendall(self._head)
        self._socket.setblocking(False)

    def drop(self) -> None:
        """Send a byte more, or begin again if the server has answered or hung up."""
        if self._socket is not None:
            with suppress(ConnectionError):
                try:
                    self._socket.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    self._socket.sendall(b" ")
                    return
        self.begin()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
