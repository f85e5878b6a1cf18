"""Just enough HTTP/1.1 for a client that must cost less than the server it drives.

A request is bytes made beforehand. Of an answer only its status and where it ends are read, and the end only from
`Content-Length`, which every answer of ingest has. A connection carries one request at a time.
"""

from __future__ import annotations

import asyncio
from typing import cast


def post_head(path: str, length: int) -> bytes:
    """Return what stands before a JSON body of `length` bytes, on a connection that stays open."""
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        path.encode(),
        length,
    )


def post(path: str, body: bytes) -> bytes:
    """Return the bytes of a JSON POST on a connection that stays open."""
    return post_head(path, len(body)) + body


def get(path: str) -> bytes:
    """Return the bytes of a GET on a connection that stays open."""
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()


def split(received: bytes) -> tuple[bytes, int]:
    """Return the head of the first message in `received`, in lower case, and where the message ends.

    The end is 0 while there is more to come. Requests and answers are alike in this.
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
    """One connection of a client: `write` sends a request, and its whole answer comes to `answered`.

    A subclass says in `opened`, `answered` and `lost` what follows. It writes no second request before the answer
    to the first. After `lost` nothing comes any more; a request under way has no answer then.
    """

    def __init__(self) -> None:
        self._received = b""

    def opened(self) -> None:
        """The connection stands."""

    def answered(self, status: int, closing: bool) -> None:
        """An answer came with `status`; `closing`: the server takes no further request on this connection."""

    def lost(self) -> None:
        """The connection is gone, by whichever side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        # uvloop's transports are no subclass of asyncio.Transport, only its equal.
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self.close = self._transport.close
        self.abort = self._transport.abort
        self.is_closing = self._transport.is_closing
        self.opened()

    def data_received(self, data: bytes) -> None:
        """Read an answer as far as it has come (asyncio calls this)."""
        received = self._received + data if self._received else data
        head, end = split(received)
        if not end:
            self._received = received
            return
        self._received = b""
        self.answered(int(head[9:12]), b"\r\nconnection: close" in head)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the subclass (asyncio calls this)."""
        self.lost()
