"""What a stream's client and its server say to each other: event ids, and bytes framed once for all."""

from __future__ import annotations

from typing import NamedTuple

from pipeline import sse
from pipeline.errors import MessageError
from pipeline.messages import encode

EVENT_ID_MAX = 300
# RFC 6455, section 5.2: the last frame of a message; a ping without a payload.
_TEXT = 0x81
_PING = b"\x89\x00"


class EventId(NamedTuple):
    """`<epoch>:<window>`."""

    epoch: str
    window: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.window}"


BEFORE_ALL = EventId("begin", 0)
"""What a client has that came before the first window there ever was; no query of Spark's is called so."""


def parse_event_id(text: str, field: str) -> EventId:
    """Return the id a client sent as `field`. Raises MessageError for what no server of ours sent."""
    epoch, _, window = text.rpartition(":")
    number = window.isascii() and window.isdigit() and len(window) < 19
    # What is not UTF-8 comes from HTTP as surrogates, which cannot be sent back in an answer.
    foreign = any("\ud800" <= character <= "\udfff" for character in epoch)
    if not (epoch and number) or foreign or len(text) > EVENT_ID_MAX:
        raise MessageError(f"{field} is {text[:80]!a}: send the last event's id, <epoch>:<window>, or none")
    return EventId(epoch, int(window))


class Missed(NamedTuple):
    """Why a stream cannot go on where it stopped; not `settled` while a window to come may change that."""

    reason: str
    settled: bool


class Wire(NamedTuple):
    """Bytes ready to be sent, framed once for all.

    `plain` is a server-sent event, `chunk` that as one chunk of HTTP/1.1, `frame` a whole WebSocket frame, and
    `message` the JSON it carries, which is also one item of a poll's answer, empty for what is none; `event_id` is
    empty for what only keeps a connection alive.
    """

    plain: bytes
    chunk: bytes
    frame: bytes
    message: bytes = b""
    event_id: str = ""


def chunked(data: bytes) -> bytes:
    """Frame `data`, which is not empty (an empty chunk would end the response)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def text_frame(payload: bytes) -> bytes:
    """Return one unmasked WebSocket text message, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload


def event(event_id: str, name: str, data: bytes) -> Wire:
    """Frame one event; `data` is JSON on one line. Raises MessageError when it cannot be sent."""
    plain = sse.encode_event(event_id, name, data)
    message = b'{"id":%b,"event":%b,"data":%b}' % (encode(event_id), encode(name), data)
    return Wire(plain, chunked(plain), text_frame(message), message, event_id)


def heartbeat() -> Wire:
    """Return what goes out when nothing else does, so that dead connections are noticed."""
    plain = sse.comment("heartbeat")
    return Wire(plain, chunked(plain), _PING)


def beginning(newest: EventId) -> Wire:
    """Return what tells a client that begins where it begins: cut off before its first window, it resumes all the same.

    As a server-sent event it is an id alone, which sets the last event id and dispatches nothing (section 9.2.6). A
    poll's answer says it in `after`.
    """
    plain = b"id: %b\n\n" % str(newest).encode()
    message = b'{"id":%b,"event":"begin","data":{}}' % encode(str(newest))
    return Wire(plain, chunked(plain), text_frame(message), event_id=str(newest))


def reset_event(last: EventId, reason: str, newest: EventId) -> Wire:
    """Return the event that tells a client of a gap; the stream goes on after `newest`, which its id says."""
    said = {"reason": reason, "last_event_id": str(last), "resumes_after": str(newest)}
    return event(str(newest), "reset", encode(said))
