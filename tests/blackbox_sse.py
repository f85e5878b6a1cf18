"""A client for server-sent events on bare sockets, written from the WHATWG HTML standard, section 9.2, alone.

It knows nothing of the server under test and uses none of the project's code: an error that both shared would stay
hidden.
"""

from __future__ import annotations

import codecs
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self

DEADLINE_S = 60.0


@dataclass(frozen=True)
class StreamAddress:
    """Where one client's stream is, and the token that opens it."""

    host: str
    port: int
    path: str
    token: str


class Source(Protocol):
    """A server under test."""

    def client(self) -> StreamAddress:
        """Register a client."""

    def emit(self, emoji: str = "😂") -> None:
        """Send one more event to every client, with `emoji` in it."""

    def delete(self, address: StreamAddress) -> None:
        """Delete a client; its open stream ends."""


@dataclass(frozen=True)
class Event:
    """The arguments of the standard's `dispatchEvent`."""

    type: str
    data: str
    last_event_id: str


@dataclass
class Parser:
    """Section 9.2.6, "Interpreting an event stream", character by character."""

    last_event_id: str = ""
    reconnection_time_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    _data: str = ""
    _event_type: str = ""
    _id: str = ""
    _line: str = ""
    _after_cr: bool = False
    _started: bool = False

    def __post_init__(self) -> None:
        """Start the id buffer with the previous connection's last id."""
        self._id = self.last_event_id
        # Strict, although the standard replaces such bytes: a server must not send them.
        self._decode = codecs.getincrementaldecoder("utf-8")("strict").decode

    def feed(self, body: bytes) -> list[Event]:
        """Return the events that these bytes dispatch."""
        return [event for character in self._decode(body) for event in self._character(character)]

    @property
    def between_lines(self) -> bool:
        """Whether the last line is complete."""
        return not self._line

    @property
    def between_events(self) -> bool:
        """Whether no part of an event waits for the blank line that dispatches it."""
        return not (self._line or self._data or self._event_type) and self._id == self.last_event_id

    def _character(self, character: str) -> Iterator[Event]:
        started, self._started = self._started, True
        if not started and character == "\N{ZERO WIDTH NO-BREAK SPACE}":
            return
        after_cr, self._after_cr = self._after_cr, character == "\r"
        if character == "\n" and after_cr:
            return
        if character in "\r\n":
            line, self._line = self._line, ""
            self.lines.append(line)
            yield from self._end_of_line(line)
        else:
            self._line += character

    def _end_of_line(self, line: str) -> Iterator[Event]:
        if line == "":
            yield from self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        elif ":" in line:
            name, value = line.split(":", 1)
            self._field(name, value[1:] if value.startswith(" ") else value)
        else:
            self._field(line, "")

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._event_type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and value and all(digit in "0123456789" for digit in value):
            self.reconnection_time_ms = int(value, 10)

    def _dispatch(self) -> Iterator[Event]:
        self.last_event_id = self._id
        data, event_type = self._data, self._event_type
        self._data = self._event_type = ""
        if data:
            yield Event(event_type or "message", data[:-1], self.last_event_id)


class Exchange:
    """One request on a connection of its own, and its answer, read piece by piece; every wait has a deadline."""

    def __init__(
        self,
        address: StreamAddress,
        last_event_id: str | None = None,
        *,
        method: str = "GET",
        version: str = "1.1",
        headers: dict[str, str | None] | None = None,
        query: str = "",
    ) -> None:
        fields: dict[str, str | None] = {
            "Host": f"{address.host}:{address.port}",
            "Authorization": f"Bearer {address.token}",
            "Accept": "text/event-stream",
            "Cache-Control": "no-store",
            "Last-Event-ID": last_event_id,
            **(headers or {}),
        }
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        head = "\r\n".join([f"{method} {address.path}{query} HTTP/{version}", *lines, "", ""])
        self._socket = socket.create_connection((address.host, address.port), DEADLINE_S)
        self._socket.settimeout(DEADLINE_S)
        self._received = b""
        self._over = False
        self._resumes_after = last_event_id or ""
        self.body = b""
        self.parser = Parser(last_event_id=self._resumes_after)
        self.events: list[Event] = []
        try:
            self._socket.sendall(head.encode("utf-8", "surrogateescape"))
            self._read_head(method)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def header(self, name: str) -> str | None:
        """Return the value of a header; fail if it occurs twice."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def next_event(self) -> Event:
        """Wait for the next event."""
        while not self.events:
            assert self.read(), f"the stream ended; it had sent {self.body[-500:]!r}"
        return self.events.pop(0)

    def next_ids(self, count: int) -> list[str]:
        """Wait for `count` events; return their ids."""
        return [self.next_event().last_event_id for _ in range(count)]

    def next_comment(self) -> str:
        """Wait for the next new comment; return it."""
        seen = len(self.parser.comments)
        while len(self.parser.comments) == seen:
            assert self.read(), "the stream ended"
        return self.parser.comments[seen]

    def read_to_end(self) -> bytes:
        """Wait for the end of the body; return all of it."""
        while self.read():
            pass
        return self.body

    def read_after_answer(self) -> bytes:
        """Wait for the end of the connection; return the bytes after the answer."""
        while chunk := self._socket.recv(65536):
            self._received += chunk
        return self._received

    def cut_after(self, count: int) -> None:
        """Wait for `count` bytes of the body and parse these alone, like a client that got no more."""
        while len(self.body) < count:
            assert self.read(), "the stream ended"
        self.parser = Parser(last_event_id=self._resumes_after)
        self.events = self.parser.feed(self.body[:count])

    def read(self) -> bool:
        """Wait for more of the body; False at its end. Fails on framing that is not HTTP's."""
        while True:
            piece = self._unframe()
            if piece:
                self.body += piece
                self.events += self.parser.feed(piece)
                return True
            if self._over:
                return False
            chunk = self._socket.recv(65536)
            self._received += chunk
            if not chunk:
                assert self._chunk_left is None, f"the connection ended within the chunked body: {self.body[-200:]!r}"
                assert not self._length_left, f"the connection ended {self._length_left} bytes too early"
                self._over = True

    def _read_head(self, method: str) -> None:
        while b"\r\n\r\n" not in self._received:
            chunk = self._socket.recv(65536)
            assert chunk, f"the connection ended in the head: {self._received!r}"
            self._received += chunk
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("ascii").split("\r\n")
        self.version, status, _ = status_line.split(" ", 2)
        self.status = int(status)
        pairs = [line.split(":", 1) for line in lines]
        self.headers = [(name.lower(), value.strip()) for name, value in pairs]
        length = self.header("Content-Length")
        coding = self.header("Transfer-Encoding")
        assert length is None or coding is None, "Content-Length and Transfer-Encoding at once (RFC 9112, section 6.2)"
        assert coding in (None, "chunked"), coding
        # The rest of the current chunk, its CRLF included; None if the body is not chunked.
        self._chunk_left: int | None = None if coding is None else 0
        self._length_left: int | None = None if length is None else int(length)
        # Answers that have no body, whatever their headers (RFC 9112, section 6.3).
        self._over = self.status == 204 or method == "HEAD" or length == "0"

    def _unframe(self) -> bytes:
        """Remove and return the body bytes received so far."""
        if self._chunk_left is None:
            piece, self._received = self._received, b""
            if self._length_left is not None:
                self._length_left -= len(piece)
                assert self._length_left >= 0, f"more bytes than Content-Length: {piece[-200:]!r}"
                self._over = self._length_left == 0
            return piece
        if self._chunk_left == 0:
            size_line, line_end, rest = self._received.partition(b"\r\n")
            if not line_end:
                return b""
            assert size_line, "an empty chunk size"
            assert all(digit in b"0123456789abcdefABCDEF" for digit in size_line), f"chunk size {size_line!r}"
            size = int(size_line, 16)
            if size == 0:
                if len(rest) < 2:
                    return b""
                assert rest == b"\r\n", f"after the last chunk: {rest!r}"
                self._over = True
                self._chunk_left = None
                return b""
            self._chunk_left, self._received = size + 2, rest
        if len(self._received) < self._chunk_left:
            # Return the data so far at once; check the CRLF when it has arrived.
            usable = min(len(self._received), self._chunk_left - 2)
            piece, self._received = self._received[:usable], self._received[usable:]
            self._chunk_left -= usable
            return piece
        piece, self._received = self._received[: self._chunk_left], self._received[self._chunk_left :]
        assert piece.endswith(b"\r\n"), f"a chunk ended in {piece[-20:]!r}"
        self._chunk_left = 0
        # Only the CRLF was left: continue with the next chunk.
        return piece[:-2] or self._unframe()
