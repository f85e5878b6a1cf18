"""Encodes and parses server-sent events as the WHATWG HTML standard defines them (section 9.2). No I/O.

A server frames its events with `encode_event` and `comment`; a client feeds the bytes it receives to an `SseParser`.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from pipeline.errors import MessageError

# The standard's line ends only; str.splitlines would also cut data at U+2028.
_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE_END_BYTES = re.compile(rb"\r\n|\r|\n")
_BOM = "\ufeff"

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = "Last-Event-ID"
"""The header with which a client names the last event that it received."""


class SseEvent(NamedTuple):
    """One dispatched event.

    `id` is the stream's last event id at that moment ("" before the first id), `event` the event's type, `retry_ms` the
    reconnection time in force, ms (None if the server never set one).
    """

    id: str
    event: str
    data: str
    retry_ms: int | None


def _one_line(field: str, value: str) -> bytes:
    if _LINE_END.search(value) or "\0" in value:
        raise MessageError(f"SSE field {field} is {value!r}: remove its line ends and NULs")
    return f"{field}: {value}\n".encode()


def encode_event(event_id: str | None, event: str | None, data: bytes) -> bytes:
    """Return one event's bytes; `data` is UTF-8 and may have several lines.

    None omits a field; an empty `event_id` makes the client forget its last id. Raises MessageError if `event_id` or
    `event` contains a line end or NUL.
    """
    head = b"" if event_id is None else _one_line("id", event_id)
    if event is not None:
        head += _one_line("event", event)
    return head + b"".join(b"data: %b\n" % line for line in _LINE_END_BYTES.split(data)) + b"\n"


def comment(text: str) -> bytes:
    """Return a comment's bytes: clients ignore it, and it reveals a dead connection."""
    return b"".join(b": %b\n" % line.encode() for line in _LINE_END.split(text)) + b"\n"


def retry(reconnect_ms: int) -> bytes:
    """Return the bytes that set a client's reconnection time."""
    return b"retry: %d\n\n" % reconnect_ms


class SseParser:
    """Parses one connection's stream; chunks may end anywhere, even inside a character or a CRLF.

    A reconnecting client sends `last_event_id` as `Last-Event-ID`; pass it, and `retry_ms`, from the previous
    connection's parser.
    """

    def __init__(self, last_event_id: str = "", retry_ms: int | None = None) -> None:
        self.last_event_id = last_event_id
        self.retry_ms = retry_ms
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._started = False
        self._after_cr = False
        self._partial_line: list[str] = []
        self._id = last_event_id
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Return the events that `chunk` completes, in order; an event that never ends is not dispatched."""
        text = self._decode(chunk)
        if text and not self._started:
            self._started = True
            text = text.removeprefix(_BOM)
        if text and self._after_cr:
            # The line ended at its CR: waiting for a LF that may never come would hold an event back.
            self._after_cr = False
            text = text.removeprefix("\n")
        if not text:
            return []
        self._after_cr = text.endswith("\r")
        *lines, rest = _LINE_END.split(text)
        if lines:
            lines[0] = "".join((*self._partial_line, lines[0]))
            self._partial_line = [rest]
        else:
            # Joined once, when the line ends: joining at each chunk would copy a long line many times.
            self._partial_line.append(rest)
        return [event for line in lines if (event := self._read_line(line)) is not None]

    def _read_line(self, line: str) -> SseEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> SseEvent | None:
        self.last_event_id = self._id
        data, event = self._data, self._event
        self._data, self._event = [], ""
        if not data:
            return None
        return SseEvent(self._id, event or "message", "\n".join(data), self.retry_ms)
