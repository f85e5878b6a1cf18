"""Server-sent events seen from outside: bare sockets, and the WHATWG HTML standard's section 9.2 word by word.

Nothing here knows the server it is held against, nor is any of the project's code used: whatever both sides got wrong
alike would stay unseen.
"""

from __future__ import annotations

import codecs
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Place:
    """Where one client's stream is, and what opens it."""

    host: str
    port: int
    path: str
    token: str


class Source(Protocol):
    """A server under test."""

    def client(self) -> Place:
        """Make a client."""

    def emit(self, emoji: str = "😂") -> None:
        """Have one more event sent to everyone, in which `emoji` occurs."""

    def delete(self, place: Place) -> None:
        """Delete a client; a stream it has open ends."""


@dataclass(frozen=True)
class Event:
    """What `dispatchEvent` would be called with."""

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
    _begun: bool = False

    def __post_init__(self) -> None:
        """The id buffer starts from what the connection before left."""
        self._id = self.last_event_id
        # Strict where the standard replaces: a server that sends such bytes is wrong.
        self._decode = codecs.getincrementaldecoder("utf-8")("strict").decode

    def feed(self, body: bytes) -> list[Event]:
        """Take bytes; return the events they dispatch."""
        return [event for character in self._decode(body) for event in self._character(character)]

    @property
    def between_lines(self) -> bool:
        """Whether the last line is complete."""
        return not self._line

    @property
    def between_events(self) -> bool:
        """Whether nothing of an event is waiting for the blank line that dispatches it."""
        return not (self._line or self._data or self._event_type) and self._id == self.last_event_id

    def _character(self, character: str) -> Iterator[Event]:
        begun, self._begun = self._begun, True
        if not begun and character == "\N{ZERO WIDTH NO-BREAK SPACE}":
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
    """One request on a connection of its own, and its answer read as it comes; every wait has a deadline."""

    def __init__(
        self,
        place: Place,
        last_event_id: str | None = None,
        *,
        method: str = "GET",
        version: str = "1.1",
        headers: dict[str, str | None] | None = None,
        query: str = "",
    ) -> None:
        asked: dict[str, str | None] = {
            "Host": f"{place.host}:{place.port}",
            "Authorization": f"Bearer {place.token}",
            "Accept": "text/event-stream",
            "Cache-Control": "no-store",
            "Last-Event-ID": last_event_id,
            **(headers or {}),
        }
        lines = [f"{name}: {value}" for name, value in asked.items() if value is not None]
        head = "\r\n".join([f"{method} {place.path}{query} HTTP/{version}", *lines, "", ""])
        self._socket = socket.create_connection((place.host, place.port), DEADLINE_S)
        self._socket.settimeout(DEADLINE_S)
        self._received = b""
        self._over = False
        self._asked_after = last_event_id or ""
        self.body = b""
        self.parser = Parser(last_event_id=self._asked_after)
        self.events: list[Event] = []
        try:
            self._socket.sendall(head.encode("utf-8", "surrogateescape"))
            self._read_head(method)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave without a word."""
        self._socket.close()

    def header(self, name: str) -> str | None:
        """The value of a header that occurs at most once."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def next_event(self) -> Event:
        """Wait for the next event."""
        while not self.events:
            assert self.read(), f"the stream ended; it had sent {self.body[-500:]!r}"
        return self.events.pop(0)

    def next_ids(self, count: int) -> list[str]:
        """Wait for so many events; their ids."""
        return [self.next_event().last_event_id for _ in range(count)]

    def next_comment(self) -> str:
        """Wait for a comment that has not been read before."""
        seen = len(self.parser.comments)
        while len(self.parser.comments) == seen:
            assert self.read(), "the stream ended"
        return self.parser.comments[seen]

    def read_to_end(self) -> bytes:
        """Wait for the end of the body; all of it."""
        while self.read():
            pass
        return self.body

    def what_else(self) -> bytes:
        """Wait for the end of the connection; what came after the answer."""
        while got := self._socket.recv(65536):
            self._received += got
        return self._received

    def cut_after(self, count: int) -> None:
        """Wait for so many bytes of the body and go by these alone, like a client that got no more."""
        while len(self.body) < count:
            assert self.read(), "the stream ended"
        self.parser = Parser(last_event_id=self._asked_after)
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
            got = self._socket.recv(65536)
            self._received += got
            if not got:
                assert self._chunk_left is None, f"the connection ended within the chunked body: {self.body[-200:]!r}"
                assert not self._length_left, f"the connection ended {self._length_left} bytes too early"
                self._over = True

    def _read_head(self, method: str) -> None:
        while b"\r\n\r\n" not in self._received:
            got = self._socket.recv(65536)
            assert got, f"the connection ended in the head: {self._received!r}"
            self._received += got
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
        # What is left of the chunk under way, its CRLF included; None where the body is not chunked.
        self._chunk_left: int | None = None if coding is None else 0
        self._length_left: int | None = None if length is None else int(length)
        # Section 6.3 of RFC 9112: what has no body whatever the headers say.
        self._over = self.status == 204 or method == "HEAD" or length == "0"

    def _unframe(self) -> bytes:
        """Take body bytes off what was received, as far as they are there."""
        if self._chunk_left is None:
            piece, self._received = self._received, b""
            if self._length_left is not None:
                self._length_left -= len(piece)
                assert self._length_left >= 0, f"more came than Content-Length says: {piece[-200:]!r}"
                self._over = self._length_left == 0
            return piece
        if self._chunk_left == 0:
            size_line, found, rest = self._received.partition(b"\r\n")
            if not found:
                return b""
            assert size_line, "an empty chunk size"
            assert all(digit in b"0123456789abcdefABCDEF" for digit in size_line), f"chunk size {size_line!r}"
            size = int(size_line, 16)
            if size == 0:
                if len(rest) < 2:
                    return b""
                assert rest == b"\r\n", f"after the last chunk came {rest!r}"
                self._over = True
                self._chunk_left = None
                return b""
            self._chunk_left, self._received = size + 2, rest
        if len(self._received) < self._chunk_left:
            # Of the data, what is there is given at once; the CRLF is checked when it has come.
            usable = min(len(self._received), self._chunk_left - 2)
            piece, self._received = self._received[:usable], self._received[usable:]
            self._chunk_left -= usable
            return piece
        piece, self._received = self._received[: self._chunk_left], self._received[self._chunk_left :]
        assert piece.endswith(b"\r\n"), f"a chunk ended in {piece[-20:]!r}"
        self._chunk_left = 0
        # Nothing but the CRLF was left of it: look on.
        return piece[:-2] or self._unframe()
