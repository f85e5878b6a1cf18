"""What a stream's client and its server say to each other: event ids, and bytes framed once for all."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.delivering.sse import encode_event
from pipeline.errors import MessageError
from pipeline.messages import encode

EVENT_ID_MAX = 300


class EventId(NamedTuple):
    """`<epoch>:<window>`."""

    epoch: str
    window: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.window}"


def parse_event_id(text: str) -> EventId:
    """Return the id a client sent as `Last-Event-ID`. Raises MessageError for what no server of ours sent."""
    epoch, _, window = text.rpartition(":")
    if not epoch or not (window.isascii() and window.isdigit() and len(window) < 19) or len(text) > EVENT_ID_MAX:
        raise MessageError(f"Last-Event-ID is {text[:80]!a}: send the last event's id, <epoch>:<window>, or none")
    return EventId(epoch, int(window))


class Missed(NamedTuple):
    """Why a stream cannot go on where it stopped; not `settled` while a window to come may change that."""

    reason: str
    settled: bool


class Wire(NamedTuple):
    """Bytes ready to be sent, framed once for all: as they are, and as one chunk of HTTP/1.1."""

    plain: bytes
    chunk: bytes


def wire(data: bytes) -> Wire:
    """Frame `data`, which is not empty (an empty chunk would end the response)."""
    return Wire(data, b"%x\r\n%b\r\n" % (len(data), data))


def reset_event(last: EventId, reason: str, newest: EventId | None) -> Wire:
    """Return the event that tells a client of a gap; the stream goes on after `newest`, which its id says."""
    after = "" if newest is None else str(newest)
    data = {"reason": reason, "last_event_id": str(last), "resumes_after": after}
    return wire(encode_event(after, "reset", encode(data)))
