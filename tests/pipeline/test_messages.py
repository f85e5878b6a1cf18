"""Messages survive encoding and decoding, and malformed ones raise MessageError."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import messages
from pipeline.errors import MessageError
from pipeline.messages import Announcement, Event, Hop, Registration, TypeCount, Window, encode

NS = st.integers(0, 2**62)
TEXT = st.text(max_size=20)
NAME = st.from_regex(r"\A[A-Za-z0-9_-]{1,20}\Z").filter(lambda name: not name.endswith("-feed"))
URLS = st.sampled_from(["http://s", "http://2", "https://s.example:8443/base", "http://[::1]:8101"])
COUNT = st.integers(0, 2**40)
HOP = st.builds(Hop, TEXT, COUNT, NS, NS)
CELL = st.builds(TypeCount, TEXT, COUNT, COUNT)
WINDOW = st.builds(
    Window,
    epoch=TEXT,
    window=COUNT,
    trigger_ns=NS,
    emitted_ns=NS,
    offsets=st.dictionaries(TEXT, st.tuples(COUNT, COUNT), max_size=4),
    total=COUNT,
    reactions=st.lists(CELL, max_size=5),
    malformed=COUNT,
    cluster=st.none() | TEXT,
    hops=st.lists(HOP, max_size=4).map(tuple),
    carried=st.just(msgspec.UNSET) | st.dictionaries(TEXT, COUNT, max_size=4),
    appended_ms=st.just(msgspec.UNSET) | st.dictionaries(TEXT, COUNT, max_size=4),
)
HOP_OF_NOW = Hop("cluster-publisher-1", 2**40, 1_795_000_000 * 10**9, 1_795_000_000 * 10**9)
DECODERS = {
    Event: messages.decode_event,
    Window: messages.decode_window,
    Registration: messages.decode_registration,
    Announcement: messages.decode_announcement,
}
MESSAGE = (
    st.builds(Event, TEXT, TEXT, TEXT, NS, NS)
    | WINDOW
    | st.builds(Registration, NAME, TEXT, NAME, NAME, NS)
    | st.builds(Announcement, NAME, NAME, URLS, COUNT, NS, st.none() | TEXT)
)


@given(message=MESSAGE)
def test_message_survives_its_json(message: msgspec.Struct) -> None:
    """The decoded message equals the original, and the bytes are plain JSON."""
    encoded = encode(message)
    assert DECODERS[type(message)](encoded) == message
    assert json.loads(encoded) == json.loads(json.dumps(msgspec.to_builtins(message)))


@given(message=MESSAGE, name=st.from_regex(r"\Ax[a-z]{1,9}\Z"))
def test_unknown_fields_are_ignored(message: msgspec.Struct, name: str) -> None:
    """A newer producer does not break an older consumer."""
    newer = encode({**msgspec.to_builtins(message), name: [1, {"a": None}]})
    assert DECODERS[type(message)](newer) == message


@given(value=st.binary())
def test_arbitrary_bytes_raise_message_error(value: bytes) -> None:
    """No other error is raised; the message names the expected type."""
    for kind, decode in DECODERS.items():
        with pytest.raises(MessageError, match=kind.__name__):
            decode(value)


@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (None, "the record is null"),
        (b"", "truncated"),
        (b"null", "expected `object`"),
        (b'{"epoch":"e"}', "required field `window`"),
        (b'{"epoch":1}', r"\$\.epoch"),
        (b'{"epoch":"\xff"}', "utf-8"),
        (b'{"extra":' + b"[" * 100_000, "recursion"),
    ],
)
def test_error_names_type_and_fault(value: bytes | None, culprit: str) -> None:
    """Also for a deeply nested record, and the text stays short."""
    with pytest.raises(MessageError, match=f"(?i)Window.*{culprit}") as caught:
        messages.decode_window(value)
    assert len(str(caught.value)) < 500


def test_window_that_no_producer_takes_is_refused() -> None:
    """Kafka's defaults take a million bytes, and each stage adds to a window."""
    cells = [TypeCount(f"t{number:08d}{'x' * 20}", 1, 1) for number in range(13_300)]
    large = encode(Window("e", 1, 0, 0, {}, len(cells), cells))
    with pytest.raises(MessageError, match=rf"not a Window: it has {len(large)} bytes, 900000 at most can go on"):
        messages.decode_window(large)
    cells = [TypeCount("👩🏽‍❤️‍💋‍👨🏿", 2**40, 2**40)] * 4_000
    all_emoji = Window("e", 1, 0, 0, {}, 2**52, cells, hops=(HOP_OF_NOW,) * 3)
    assert messages.decode_window(encode(all_emoji)) == all_emoji


@pytest.mark.parametrize("number", [-1, 2**63, 10**400, 1.5])
@pytest.mark.parametrize("field", ["window", "trigger_ns", "emitted_ns", "total", "malformed"])
def test_numbers_that_no_stage_can_add_are_refused(field: str, number: float) -> None:
    """They would overflow in metrics and offsets, after the record was written: every stage would end at it."""
    whole = msgspec.to_builtins(Window("e", 1, 1, 1, {}, 0, []))
    with pytest.raises(MessageError, match=f"Window.*{field}"):
        messages.decode_window(json.dumps({**whole, field: number}).encode())
    with pytest.raises(MessageError, match=r"Announcement.*clients"):
        messages.decode_announcement(
            json.dumps({**msgspec.to_builtins(Announcement("1", "1", "http://s", 0, 0)), "clients": number}).encode()
        )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://x\r\ny",
        "http://x/\r\nSet-Cookie: a",
        "http://x\n",
        "ftp://x",
        "//x",
        "http://[bad",
        "http://[:::]",
        "http://x:99999",
    ],
)
def test_url_that_no_client_can_be_sent_to_is_refused(url: str) -> None:
    """It would stand in the Location header of each client that is redirected there."""
    whole = {"subscriber": "1", "cluster": "1", "clients": 0, "announced_ns": 0}
    with pytest.raises(MessageError, match=r"Announcement.*url"):
        messages.decode_announcement(json.dumps({**whole, "url": url}).encode())


@pytest.mark.parametrize("field", ["client_id", "cluster", "subscriber"])
@pytest.mark.parametrize("name", ["", "a\r\nb", "a\n", "a/b", "a b", "ü"])
def test_name_that_no_url_can_hold_is_refused(field: str, name: str) -> None:
    """The registry writes the names of a registration into addresses and tickets."""
    whole = msgspec.to_builtins(Registration("c", "digest", "1", "1", 0))
    with pytest.raises(MessageError, match=f"Registration.*{field}"):
        messages.decode_registration(json.dumps({**whole, field: name}).encode())


@given(window=WINDOW)
def test_event_id_has_epoch_and_number(window: Window) -> None:
    """The event id can be split again, for any name of the epoch."""
    epoch, _, number = window.event_id.rpartition(":")
    assert (epoch, int(number)) == (window.epoch, window.window)
