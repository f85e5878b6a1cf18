"""Whether a Kafka listens at an address: the library reports nothing, a web server and a TLS port all as a timeout."""

from __future__ import annotations

import socket
import struct

REQUEST_ID = 0x456D6F53
# ApiVersions, version 0, without a client id: any Kafka since 0.10 answers it before anything else.
BODY = struct.pack(">hhih", 18, 0, REQUEST_ID, -1)
REQUEST = struct.pack(">i", len(BODY)) + BODY
HEADER = struct.Struct(">ii")
# A web server that waits for the end of a line answers when nothing more can come.
SILENT_S = 1.0


class NotKafkaError(OSError):
    """Something else than a Kafka without TLS answers at an address."""


def connect(host: str, port: int, timeout_s: float) -> None:
    """Return once something at `host`, `port` takes a connection. Raises OSError if nothing does."""
    socket.create_connection((host, port), timeout=timeout_s).close()


def ask(host: str, port: int, timeout_s: float) -> None:
    """Return once a Kafka has answered at `host`, `port`.

    Raises NotKafkaError if something else does, and OSError if nothing answers within about `timeout_s`: the host does
    not resolve, the connection is refused or closed, or nothing is sent.
    """
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(REQUEST)
        try:
            answer = _receive(connection)
        except TimeoutError:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(SILENT_S)
            answer = _receive(connection)
            if not answer:
                raise TimeoutError("it takes connections and does not answer as a Kafka does") from None
    if not answer:
        raise ConnectionError(
            "it closes connections, as a starting Kafka does, or one with TLS (see kafka_security_file)"
        )
    if len(answer) < HEADER.size or HEADER.unpack(answer[: HEADER.size])[1] != REQUEST_ID:
        raise NotKafkaError(
            f"it answers {answer[:12]!r}, and not as a Kafka without TLS: check host and port, or set "
            "kafka_security_file"
        )


def _receive(connection: socket.socket) -> bytes:
    """Return the first bytes of an answer, or none if the connection is closed without any."""
    answer = b""
    while len(answer) < HEADER.size and (more := connection.recv(64)):
        answer += more
    return answer
