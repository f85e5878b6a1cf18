"""Event ids, and events framed once for all streams of every transport."""

from __future__ import annotations

from typing import NamedTuple

from pipeline import sse
from pipeline.errors import MessageError
from pipeline.messages import FEED_START, KEPT, encode

EVENT_ID_MAX = 300
# RFC 6455, section 5.2: the last frame of a message; a ping without a payload.
_TEXT = 0x81
_PING = b"\x89\x00"


class EventId(NamedTuple):
    """`<epoch>:<window>`, FEED_START or KEPT."""

    epoch: str
    window: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.window}" if self.epoch else KEPT if self == OLDEST else FEED_START


EARLIEST = EventId("", -1)
"""The id before a feed's first window: a client that has it resumes from the feed's beginning."""

OLDEST = EventId("", -2)
"""The id before the oldest window that is kept: a client that has it gets all that can be replayed."""


def parse_event_id(text: str, field: str) -> EventId:
    """Return the id that a client sent as `field`. Raises MessageError for a malformed id."""
    if text == FEED_START:
        return EARLIEST
    if text == KEPT:
        return OLDEST
    epoch, _, window = text.rpartition(":")
    number = window.isascii() and window.isdigit() and len(window) < 19
    # Bytes that are not UTF-8 arrive as surrogates, which an answer cannot contain.
    foreign = any("\ud800" <= character <= "\udfff" for character in epoch)
    if not (epoch and number) or foreign or len(text) > EVENT_ID_MAX:
        raise MessageError(
            f"{field} is {text[:80]!a}: send the last event's id (<epoch>:<window>, earliest or kept), or omit it"
        )
    return EventId(epoch, int(window))


class Missed(NamedTuple):
    """Why a stream cannot resume; `final` unless a coming window may change that.

    `ahead` is whether the id lies beyond the newest window of its epoch, so that this feed has not given it.
    """

    reason: str
    final: bool
    ahead: bool = False


class Wire(NamedTuple):
    """One event or heartbeat in the framing of each transport.

    `plain` is a server-sent event, `chunk` the same as one HTTP/1.1 chunk, `frame` a whole WebSocket frame. `message`
    is the JSON in that frame and one item of a poll's answer; empty if a poll's answer omits it. `event_id` is empty
    for a heartbeat.
    """

    plain: bytes
    chunk: bytes
    frame: bytes
    message: bytes = b""
    event_id: str = ""


def chunked(data: bytes) -> bytes:
    """Frame `data` as one chunk; it must not be empty (an empty chunk ends the response)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def text_frame(payload: bytes) -> bytes:
    """Return `payload` as one unmasked WebSocket text message, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload


def event(event_id: str, name: str, data: bytes) -> Wire:
    """Frame one event; `data` is JSON on one line. Raises MessageError for an id that SSE cannot carry."""
    plain = sse.encode_event(event_id, name, data)
    message = b'{"id":%b,"event":%b,"data":%b}' % (encode(event_id), encode(name), data)
    return Wire(plain, chunked(plain), text_frame(message), message, event_id)


def heartbeat() -> Wire:
    """Return a heartbeat: it keeps a quiet connection open and reveals a dead one."""
    plain = sse.comment("heartbeat")
    return Wire(plain, chunked(plain), _PING)


def begin_event(newest: EventId) -> Wire:
    """Return the id after which a new stream starts: a client that loses it before the first window can resume.

    As a server-sent event it is an id alone, which sets the last event id and dispatches nothing (WHATWG HTML, section
    9.2.6). A poll's answer carries it in `after`.
    """
    plain = b"id: %b\n\n" % str(newest).encode()
    message = b'{"id":%b,"event":"begin","data":{}}' % encode(str(newest))
    return Wire(plain, chunked(plain), text_frame(message), event_id=str(newest))


def reset_event(last: EventId, reason: str, newest: EventId) -> Wire:
    """Return the event that reports a gap; the stream continues after `newest`, which is the event's id."""
    gap = {"reason": reason, "last_event_id": str(last), "resumes_after": str(newest)}
    return event(str(newest), "reset", encode(gap))
