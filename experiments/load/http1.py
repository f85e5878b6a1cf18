"""Just enough HTTP/1.1 for a client that must cost less than the server it drives.

A request is bytes made beforehand. Of an answer only the status and the end are read, and the end only from
`Content-Length`, which every answer of ingest has. A connection carries one request at a time.
"""

from __future__ import annotations

import asyncio
from typing import cast


def post_head(path: str, length: int) -> bytes:
    """Return the head of a POST with a JSON body of `length` bytes, on a connection that stays open."""
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        path.encode(),
        length,
    )


def post(path: str, body: bytes) -> bytes:
    """Return the bytes of a JSON POST on a connection that stays open."""
    return post_head(path, len(body)) + body


def request(method: str, path: str, body: bytes, content_type: str) -> bytes:
    """Return the bytes of any request on a connection that stays open."""
    return b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        *(method.encode(), path.encode(), content_type.encode()),
        *(len(body), body),
    )


def get(path: str) -> bytes:
    """Return the bytes of a GET on a connection that stays open."""
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()


def split(received: bytes) -> tuple[bytes, int]:
    """Return the head of the first message in `received`, in lower case, and where the message ends.

    The end is 0 while the message is incomplete. It may be a request or an answer.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return b"", 0
    head = received[:head_end].lower()
    start = head.find(b"\r\ncontent-length:")
    length = int(head[start + 17 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
    end = head_end + 4 + length
    return head, end if len(received) >= end else 0


class HttpConnection(asyncio.Protocol):
    """One connection of a client: `write` sends a request, and `answered` is called with its complete answer.

    A subclass overrides `opened`, `answered` and `lost`. It writes no second request before the answer to the first.
    After `lost` no other method is called; a request under way gets no answer.
    """

    def __init__(self) -> None:
        self._received = b""

    def opened(self) -> None:
        """The connection is open."""

    def answered(self, status: int, closing: bool) -> None:
        """An answer with `status` arrived; `closing`: the server takes no further request on this connection."""

    def lost(self) -> None:
        """The connection is closed, by either side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        # uvloop's transports have asyncio.Transport's methods without being a subclass.
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self.close = self._transport.close
        self.abort = self._transport.abort
        self.is_closing = self._transport.is_closing
        self.opened()

    def data_received(self, data: bytes) -> None:
        """Read an answer as far as it has arrived (asyncio calls this)."""
        received = self._received + data if self._received else data
        head, end = split(received)
        if not end:
            self._received = received
            return
        self._received = b""
        self.answered(int(head[9:12]), b"\r\nconnection: close" in head)

    def connection_lost(self, error: Exception | None) -> None:
        """Notify the subclass (asyncio calls this)."""
        self.lost()
