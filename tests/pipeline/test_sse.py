"""The wire format of server-sent events, both ways."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sse
from pipeline.errors import MessageError
from pipeline.sse import SseEvent, SseParser

line = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=("Cs",)))
data = st.text(st.characters(exclude_categories=("Cs",)))


def normal(text: str) -> str:
    """Return `text` with LF line ends, as the standard dispatches it."""
    return re.sub(r"\r\n|\r", "\n", text)


def feed_in_pieces(parser: SseParser, wire: bytes, cuts: list[int]) -> list[SseEvent]:
    """Feed `wire` in pieces, cut at `cuts`."""
    bounds = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    return [event for start, end in pairwise(bounds) for event in parser.feed(wire[start:end])]


@given(st.lists(st.tuples(line, line.filter(bool), data)), st.lists(st.integers(0, 10_000)))
def test_encoded_events_parse_back_with_any_cuts(events: list[tuple[str, str, str]], cuts: list[int]) -> None:
    """Every id, type and text is parsed as encoded, wherever the bytes were cut."""
    wire = b"".join(sse.comment("note") + sse.encode_event(name, kind, text.encode()) for name, kind, text in events)
    assert feed_in_pieces(SseParser(), wire, cuts) == [
        SseEvent(name, kind, normal(text), None) for name, kind, text in events
    ]


@given(st.sampled_from(["\n", "\r", "\r\n"]), st.lists(st.integers(0, 200)))
def test_lf_cr_and_crlf_all_end_a_line(end: str, cuts: list[int]) -> None:
    """A CRLF that is cut in two is still one line end."""
    lines = ["id: 1", "data: a", "data: b", "", ": note", "retry: 7", "data:c", ""]
    wire = "".join(text + end for text in lines).encode()
    assert feed_in_pieces(SseParser(), wire, cuts) == [
        SseEvent("1", "message", "a\nb", None),
        SseEvent("1", "message", "c", 7),
    ]


def test_event_ended_by_cr_is_dispatched_at_once() -> None:
    """A blank line that ends in CR dispatches without waiting for a possible LF."""
    parser = SseParser()
    assert parser.feed(b"data: x\r\r") == [SseEvent("", "message", "x", None)]
    assert parser.feed(b"\ndata: y\r\n\r\n") == [SseEvent("", "message", "y", None)]


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b"\xef\xbb\xbfdata: x\n\n", [SseEvent("", "message", "x", None)]),
        (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [SseEvent("", "message", "x", None)]),
        (b"data\n\n", [SseEvent("", "message", "", None)]),
        (b"data:  two\n\n", [SseEvent("", "message", " two", None)]),
        (b"event: e\n\ndata: x\n\n", [SseEvent("", "message", "x", None)]),
        (b"id: 1\n\ndata: x\n\n", [SseEvent("1", "message", "x", None)]),
        (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [("1", "message", "x", None), ("", "message", "y", None)]),
        (b"id: a\0b\ndata: x\n\n", [SseEvent("", "message", "x", None)]),
        (b"retry: 1x\nretry: -1\ndata: x\n\n", [SseEvent("", "message", "x", None)]),
        ("retry: ٣\ndata: x\n\n".encode(), [SseEvent("", "message", "x", None)]),
        (b"unknown: 1\ndata: x\n\n", [SseEvent("", "message", "x", None)]),
        (b"data: \xff\n\n", [SseEvent("", "message", "�", None)]),
        ("data: a\u2028b\x0bc\n\n".encode(), [SseEvent("", "message", "a\u2028b\x0bc", None)]),
        (b"data: unfinished\n", []),
    ],
)
def test_corner_cases_follow_the_standard(wire: bytes, expected: list[SseEvent]) -> None:
    """BOM, empty fields, bad retry values, NUL in an id and unfinished events."""
    assert SseParser().feed(wire) == expected


def test_last_event_id_changes_when_an_event_is_complete() -> None:
    """Also if the event has no data."""
    parser = SseParser()
    parser.feed(b"id: 1\n\nid: 2\n")
    assert parser.last_event_id == "1"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
def test_line_end_or_nul_in_a_field_raises_message_error(bad: str) -> None:
    """Neither an id nor a type can add a line of its own."""
    with pytest.raises(MessageError, match="SSE field id"):
        sse.encode_event(bad, None, b"x")
    with pytest.raises(MessageError, match="SSE field event"):
        sse.encode_event(None, bad, b"x")


@given(data)
def test_comment_never_becomes_an_event(text: str) -> None:
    """Whatever its text, a client ignores it."""
    assert SseParser().feed(sse.comment(text) + sse.retry(5)) == []
