"""Connections of the twin's servers: whole requests in, and bytes out at an exact moment, from any thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import cast

from experiments.load.http1 import split
from pipeline.messages import encode

REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 307: "Temporary Redirect"}
Handle = Callable[["HttpConnection", str, str, bytes], None]
"""`handle(connection, method, path, body)` answers one request; `connection.content_type` is that of the body."""
_CONTENT_TYPE = b"\r\ncontent-type: "


def answer(status: int, body: object = None, *headers: str) -> bytes:
    """Return an answer with `body` as JSON, or with the bytes given."""
    content = b"" if body is None else body if isinstance(body, bytes) else encode(body)
    kind = "application/json" if status < 400 else "application/problem+json"
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}", f"Content-Type: {kind}", *headers]
    if status != 204:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class HttpConnection(asyncio.Protocol):
    """One connection; its requests go to `handle` in turn. `on_lost` is called when it has closed."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._received = b""
        self._lock = threading.Lock()
        self._file = -1
        self.content_type = ""
        self.on_lost: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and a file of its socket for other threads (asyncio calls this)."""
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        # A duplicate: its number belongs to this connection until it is closed here.
        self._file = os.dup(transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        """Handle every whole request (asyncio calls this)."""
        received = self._received + data
        while received:
            head, end = split(received)
            if not end:
                break
            method, path, _ = head.split(b" ", 2)
            body = received[head.__len__() + 4 : end]
            received = received[end:]
            self.content_type = head.partition(_CONTENT_TYPE)[2].partition(b"\r\n")[0].decode("latin-1")
            self._handle(self, method.decode("ascii").upper(), path.decode("latin-1"), body)
        self._received = received

    def connection_lost(self, error: Exception | None) -> None:
        """Close the file (asyncio calls this)."""
        with self._lock:
            file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
        self.on_lost()

    def send(self, data: bytes) -> None:
        """Write now, on the calling thread; what the socket does not take follows from the event loop."""
        with self._lock:
            if self._file < 0:
                return
            try:
                written = os.write(self._file, data)
            except BlockingIOError:
                written = 0
            except OSError:
                # The other side has gone; the event loop will notice.
                return
        if written < len(data):
            self._loop.call_soon_threadsafe(self._transport.write, data[written:])
