"""Whether a Kafka listens at an address, by its answer to one request."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.bus import peer
from pipeline.bus.peer import NotKafkaError

ANSWER = struct.pack(">iihi", 10, peer.REQUEST_ID, 0, 0)
Behave = Callable[[socket.socket], object]


@contextmanager
def serving(behave: Behave) -> Iterator[int]:
    """Yield the port of a server that treats one connection so."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            behave(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def until_end(connection: socket.socket) -> None:
    """Read until the client has sent all."""
    while connection.recv(100):
        pass


def answer(connection: socket.socket, *parts: bytes) -> None:
    """Read the request and answer in these parts."""
    connection.recv(100)
    for part in parts:
        connection.sendall(part)


def answer_at_end(connection: socket.socket) -> None:
    """Answer as a web server that reads lines does."""
    until_end(connection)
    connection.sendall(b"HTTP/1.0 400 Bad request version\r\n")


@pytest.mark.parametrize("parts", [(ANSWER,), (ANSWER[:3], ANSWER[3:])])
def test_kafkas_answer_is_recognised(parts: tuple[bytes, ...]) -> None:
    """Also if it arrives in pieces."""
    with serving(lambda connection: answer(connection, *parts)) as port:
        peer.ask("127.0.0.1", port, 5.0)


@pytest.mark.parametrize(
    ("behave", "seen"),
    [
        (lambda connection: answer(connection, b"HTTP/1.1 400 Bad Request\r\n"), "HTTP/1.1 400"),
        (answer_at_end, "HTTP/1.0 400"),
        (lambda connection: (connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), until_end(connection)), "SSH-2.0-Open"),
        (lambda connection: answer(connection, b"\x15\x03\x03\x00\x02\x02\x16"), r"\\x15\\x03"),
    ],
)
def test_other_server_is_named_by_its_answer(behave: Behave, seen: str) -> None:
    """A web server that answers at once or at the end, one that speaks first, and the alert of TLS."""
    with (
        serving(behave) as port,
        pytest.raises(NotKafkaError, match=f"it answers .*{seen}.*, and not as a Kafka without TLS"),
    ):
        peer.ask("127.0.0.1", port, 0.1)


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (until_end, "does not answer as a Kafka does"),
        (lambda connection: connection.recv(100), "closes connections"),
    ],
)
def test_silence_may_be_a_kafka_that_starts(behave: Behave, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt may succeed."""
    monkeypatch.setattr(peer, "SILENT_S", 0.1)
    with serving(behave) as port, pytest.raises(OSError, match=reason) as caught:
        peer.ask("127.0.0.1", port, 0.1)
    assert not isinstance(caught.value, NotKafkaError)
