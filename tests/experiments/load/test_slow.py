"""Connections that are slow or silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from experiments.load import slow
from tests.harness.waiting import until


class Listener:
    """A server that notes what each connection sends; `hang_up` ends those that are open."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = "http://127.0.0.1:%d" % self.server.getsockname()[1]  # noqa: UP031
        self.open: list[socket.socket] = []
        self.received: list[bytearray] = []
        self.ended = 0
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        """Take every connection."""
        with suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                self.open.append(connection)
                self.received.append(bytearray())
                self.threads.append(threading.Thread(target=self.read, args=(connection, self.received[-1])))
                self.threads[-1].start()

    def read(self, connection: socket.socket, into: bytearray) -> None:
        """Note what comes, until the end."""
        with suppress(OSError):
            while data := connection.recv(4096):
                into += data
        self.ended += 1

    def hang_up(self) -> None:
        """End each connection."""
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.hang_up()
        for thread in self.threads:
            thread.join(60)
        for connection in self.open:
            connection.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A server that takes every connection."""
    listener = Listener()
    yield listener
    listener.close()


def test_bodies_drip_and_begin_again(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bodies get longer while two connections say nothing; after a hang-up three begin again; none is left."""
    monkeypatch.setattr(slow, "DROP_S", 0.01)

    head = (slow.HEAD % "/clients").encode()

    def dripping() -> int:
        return sum(each.startswith(head) and len(each) > len(head) + 1 for each in listener.received)

    with slow.held(listener.url, bodies=3, silent=2, path="/clients"):
        until(lambda: dripping() == 3, "three bodies drip")
        assert [bytes(each) for each in listener.received].count(b"") == 2
        listener.hang_up()
        until(lambda: dripping() == 6, "three bodies drip again")
    until(lambda: listener.ended == 8, "no connection is left")
