"""From a body to reactions: a body is accepted whole or not at all, and every bad item is named."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.load.schedule import POPULAR_EMOJIS, bodies, poisson_plan, timestamp_of, user_names
from pipeline import timestamps
from pipeline.emojis import canonical
from pipeline.ingest import intake
from pipeline.ingest.intake import close_record, read, records
from pipeline.messages import EMOJI_MAX, USER_ID_MAX, decode_event, encode
from pipeline.problems import Refusal
from pipeline.rate_limit import RateLimit
from pipeline.text_encoding import UTF8_BOM
from pipeline.units import NS_PER_S

ARRAY_MAX = 1_000
STAMP = "2026-11-23T09:30:00.000001Z"
GOOD = {"user_id": "fan", "emoji_type": "😂", "timestamp": STAMP}
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001
REACTIONS = st.fixed_dictionaries(
    {
        "user_id": st.text(min_size=1, max_size=USER_ID_MAX),
        "emoji_type": st.sampled_from([*POPULAR_EMOJIS, "❤", "☺"]),
        "timestamp": MOMENTS.map(datetime.isoformat),
    }
)
# A bad item of an array, and the field that its error must name.
BAD_ITEMS: list[tuple[Any, str]] = [
    (5, ""),
    (None, ""),
    ("😂", ""),
    ([GOOD], ""),
    ([], ""),
    ({}, "user_id"),
    ({**GOOD, "user_id": -5}, "user_id"),
    ({**GOOD, "user_id": 5.0}, "user_id"),
    ({**GOOD, "user_id": 2**63}, "user_id"),
    ({**GOOD, "user_id": True}, "user_id"),
    ({**GOOD, "user_id": ""}, "user_id"),
    ({**GOOD, "user_id": "x" * (USER_ID_MAX + 1)}, "user_id"),
    ({**GOOD, "user_id": None}, "user_id"),
    ({**GOOD, "user_id": {"id": 1}}, "user_id"),
    ({**GOOD, "emoji_type": "😂😂"}, "emoji_type"),
    ({**GOOD, "emoji_type": "joy"}, "emoji_type"),
    ({**GOOD, "emoji_type": ""}, "emoji_type"),
    ({**GOOD, "emoji_type": "🏽"}, "emoji_type"),
    ({**GOOD, "emoji_type": "😂" * EMOJI_MAX}, "emoji_type"),
    ({**GOOD, "emoji_type": ["😂"]}, "emoji_type"),
    ({**GOOD, "timestamp": "2026-11-23T09:30:00 CET"}, "timestamp"),
    ({**GOOD, "timestamp": "yesterday"}, "timestamp"),
    ({**GOOD, "timestamp": 17_954_262_000}, "timestamp"),
    ({**GOOD, "timestamp": True}, "timestamp"),
    ({**GOOD, "timestamp": "2026-13-01T00:00:00Z"}, "timestamp"),
    ({**GOOD, "timestamp": "2026-11-23T09:30:00+99:00"}, "timestamp"),
    ({**GOOD, "timestamp": "9999-12-31T23:59:59.9999999Z"}, "timestamp"),
    ({"user_id": "fan", "emoji_type": "😂"}, "timestamp"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(GOOD.values())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(list(GOOD)), inner),
    max_leaves=8,
)


def refusal_of(body: bytes, array_max: int = ARRAY_MAX) -> Refusal:
    """Return the refusal of a body that must not be accepted."""
    with pytest.raises(Refusal) as caught:
        read(body, array_max)
    return caught.value


@given(sent=st.lists(REACTIONS, max_size=5), accepted_ns=st.integers(0, 2**62), later_ns=st.integers(0, 2**40))
def test_accepted_reactions_become_events(sent: list[dict[str, str]], accepted_ns: int, later_ns: int) -> None:
    """Each record is an Event of the same user and moment, with the emoji in canonical form and both stamps."""
    waiting = records(read(encode(sent), ARRAY_MAX), accepted_ns)
    events = [decode_event(close_record(record, accepted_ns + later_ns)) for record in waiting]
    assert [event.user_id for event in events] == [reaction["user_id"] for reaction in sent]
    assert [event.emoji_type for event in events] == [canonical(reaction["emoji_type"]) for reaction in sent]
    moments = [datetime.fromisoformat(reaction["timestamp"]) for reaction in sent]
    assert [datetime.fromisoformat(event.timestamp) for event in events] == moments
    assert {(event.accepted_ns, event.flushed_ns) for event in events} <= {(accepted_ns, accepted_ns + later_ns)}


OTHER_FORMS: list[Any] = [
    "2026-11-23T09:30:00.000001",
    1_795_426_200.000001,
    1_795_426_200_000.001,
    1_795_426_200_000_001,
    "1795426200000001000",
]
DATABASE_FORMS = ["2026-11-23 09:30:00.000001+00", "20261123T093000.000001Z", "2026-11-23T10:30:00.000001+01:00"]


@pytest.mark.parametrize("stamp", [*DATABASE_FORMS, *OTHER_FORMS, STAMP])
@pytest.mark.parametrize("emoji_type", ["⚽\ufe0f", " ⚽\u200b", "⚽\ufe0e", "⚽"])
def test_kafka_gets_one_form_of_every_spelling(stamp: Any, emoji_type: str) -> None:
    """Whatever the spelling, the record has the fully-qualified emoji and the moment in UTC; alone and in an array."""
    sent = {**GOOD, "emoji_type": emoji_type, "timestamp": stamp}
    for body in (encode(sent), encode([sent, GOOD, sent]), UTF8_BOM + encode(sent)):
        events = [decode_event(close_record(record, 2)) for record in records(read(body, ARRAY_MAX), 1)]
        assert {event.timestamp for event in events} == {STAMP}
        assert [event.emoji_type for event in events] in (["⚽"], ["⚽", "😂", "⚽"])


@pytest.mark.parametrize("number", [0, 7, 2**63 - 1])
def test_number_of_a_user_counts_as_its_digits(number: int) -> None:
    """Databases number their users; 7 and "7" are one user, for the rate limit and in Kafka."""
    body = encode([{**GOOD, "user_id": number}, {**GOOD, "user_id": str(number)}])
    reactions = read(body, ARRAY_MAX)
    assert [reaction.user_id for reaction in reactions] == [str(number)] * 2
    with pytest.raises(Refusal):
        intake.check_rate(reactions, RateLimit(1), NS_PER_S)


def test_spellings_are_accepted_whole_or_not_at_all() -> None:
    """Beside spellings that are accepted, every wrong item is named by its index."""
    unusual = {**GOOD, "emoji_type": "⚽\ufe0f", "timestamp": "20261123T0930Z"}
    wrong = [{**unusual, "emoji_type": "⚽🏽"}, {**unusual, "timestamp": "20261123"}]
    refusal = refusal_of(encode([unusual, wrong[0], GOOD, wrong[1], unusual]))
    assert refusal.errors is not None
    assert [(error["index"], error["field"]) for error in refusal.errors] == [(1, "emoji_type"), (3, "timestamp")]


@pytest.mark.parametrize(
    ("change", "field", "detail"),
    [
        (
            {"user_id": -5},
            "user_id",
            "-5 is not a user: send text of 1 to 128 characters, or a whole number from 0 to 2",
        ),
        ({"user_id": ""}, "user_id", "'' is not a user: send text of 1 to 128"),
        ({"user_id": "x" * 200}, "user_id", f"'{'x' * 80}…' is not a user"),
        ({"emoji_type": None}, "emoji_type", "null is not one emoji: send exactly one emoji, such as 😂"),
        (
            {"emoji_type": "ðŸ˜Š"},
            "emoji_type",
            "it is 😊 in UTF-8 that was read as Windows-1252: read it as UTF-8, and",
        ),
        ({"emoji_type": "?"}, "emoji_type", "the emoji was lost before it was sent"),
        ({"emoji_type": "😂" * 100}, "emoji_type", "it holds 100 emoji: send one reaction for each"),
        ({"timestamp": "2026-11-23"}, "timestamp", f"it has no time; send {re.escape(timestamps.RULE)}"),
        (
            {"timestamp": 1795},
            "timestamp",
            "1795 is not a timestamp: it is not a time from 1973 to 2286 in seconds, milliseconds",
        ),
        ({"timestamp": {"$date": 5}}, "timestamp", r'\{"\$date":5\} is not a timestamp: it is neither text nor'),
    ],
)
def test_detail_has_field_value_and_remedy(change: dict[str, Any], field: str, detail: str) -> None:
    """The words are for people: what was sent, what is wrong with it, what to send instead."""
    for body in (encode({**GOOD, **change}), encode([GOOD, {**GOOD, **change}])):
        refusal = refusal_of(body)
        assert refusal.errors is not None
        assert refusal.errors[0]["field"] == field
        assert re.search(detail, str(refusal.errors[0]["detail"]))
        assert re.search(f"in field {field}: .*{detail}", refusal.detail)


def test_missing_field_is_named() -> None:
    """Each of the fields, with what to send."""
    for field in GOOD:
        refusal = refusal_of(encode({name: value for name, value in GOOD.items() if name != field}))
        assert f"in field {field}: it is missing: send {intake.EXPECTED[field]}" in refusal.detail
        assert "also missing" not in refusal.detail
    assert "in field user_id: it is missing: " in refusal_of(b"{}").detail
    assert "; also missing: emoji_type, timestamp. A reaction is" in refusal_of(b"{}").detail
    assert "in field user_id: -5 is not a user: " in refusal_of(b'{"user_id": -5, "timestamp": "x"}').detail
    assert "; also missing: emoji_type. " in refusal_of(b'{"user_id": -5, "timestamp": "x"}').detail


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "it is UTF-16, by its byte order mark"),
        ("utf-16-le", "it is probably UTF-16 without a byte order mark"),
        ("utf-16-be", "it is probably UTF-16 without a byte order mark"),
        ("utf-32", "it is UTF-32, by its byte order mark"),
        ("utf-32-be", "it is probably UTF-32 without a byte order mark"),
        ("cesu-8", "it is probably CESU-8"),
        ("latin-1", "byte 0xe9 in line 1, position 13, is not UTF-8: it is probably Windows-1252, ISO-8859-1 or"),
    ],
)
def test_body_in_another_encoding_is_400_and_names_it(encoding: str, named: str) -> None:
    """The refusal says which encoding it probably is, and to use UTF-8."""
    text = json.dumps({**GOOD, "user_id": "é"}, ensure_ascii=False)
    if encoding == "cesu-8":
        body = text.replace("😂", "\ud83d\ude02").encode("utf-8", "surrogatepass")
    else:
        body = text.encode(encoding, "replace")
    refusal = refusal_of(body)
    assert (refusal.status, refusal.title) == (400, "Not JSON")
    assert named in refusal.detail
    assert refusal.detail.endswith("encode it in UTF-8")


@pytest.mark.parametrize("charset", ["ISO-8859-1", "windows-1252", '"latin1"'])
def test_declared_charset_is_named(charset: str) -> None:
    """It has no effect, as RFC 8259 says, unless the body is not UTF-8: then it is the probable reason."""
    headers = {"CONTENT_TYPE": f"application/json; charset={charset}"}
    assert len(read(encode(GOOD), ARRAY_MAX, headers)) == 1
    with pytest.raises(Refusal, match=f"it is probably {charset.strip(chr(34))}, as its charset says: encode it in"):
        read(json.dumps({**GOOD, "user_id": "é", "emoji_type": ""}, ensure_ascii=False).encode("latin-1"), 1, headers)


@pytest.mark.parametrize(
    ("body", "coding", "status", "detail"),
    [
        (gzip.compress(b"{}", mtime=0), "gzip", 415, "Content-Encoding is 'gzip': send the body without compression"),
        (zlib.compress(b"{}"), "deflate", 415, "Content-Encoding is 'deflate'"),
        (b"\x8b\x00\x80{}\x03", "br", 415, "Content-Encoding is 'br'"),
        (gzip.compress(b"{}", mtime=0), "", 400, "it begins like gzip: send it without compression"),
        (zlib.compress(b"{}"), "identity", 400, "it begins like deflate"),
    ],
)
def test_compressed_body_is_refused_by_name(body: bytes, coding: str, status: int, detail: str) -> None:
    """The remedy is to send it as it is; `Accept-Encoding` tells a program."""
    with pytest.raises(Refusal) as caught:
        read(body, ARRAY_MAX, {"HTTP_CONTENT_ENCODING": coding})
    assert caught.value.status == status
    assert detail in caught.value.detail
    assert caught.value.headers == ({"Accept-Encoding": "identity"} if status == 415 else {})


def test_only_the_first_wrong_emoji_of_an_array_are_explained() -> None:
    """An array of a thousand must not cost a second; each is named nevertheless."""
    refusal = refusal_of(encode([{**GOOD, "emoji_type": "ðŸ˜Š"}] * ARRAY_MAX))
    assert refusal.errors is not None
    explained = ["Windows-1252" in str(error["detail"]) for error in refusal.errors]
    assert explained == [True] * intake.EXPLAINED_MAX + [False] * (ARRAY_MAX - intake.EXPLAINED_MAX)


@given(reaction=REACTIONS)
def test_single_object_equals_an_array_of_one(reaction: dict[str, str]) -> None:
    """A single reaction and an array that holds only it give the same reactions."""
    assert read(encode(reaction), ARRAY_MAX) == read(encode([reaction]), ARRAY_MAX)


@pytest.mark.parametrize(
    "reaction_id", ["a", "x" * 64, "ü" * 32, "01990b5c-5d1f-7a3e-8c1d-3f5a7b9c2e4d", "😂" * 16, None]
)
def test_id_of_a_reaction_is_kept(reaction_id: str | None) -> None:
    """In each form of a body; null is none, and a record without an id has no such field."""
    wanted = {} if reaction_id is None else {"reaction_id": reaction_id}
    for change in ({}, {"user_id": 7}, {"emoji_type": "❤"}):
        for body in ({**GOOD, **change, "reaction_id": reaction_id}, [{**GOOD, **change, "reaction_id": reaction_id}]):
            (record,) = records(read(json.dumps(body).encode(), ARRAY_MAX), 5)
            event = json.loads(close_record(record, 7))
            assert {name: event[name] for name in event.keys() - GOOD.keys() - {"accepted_ns", "flushed_ns"}} == wanted
            assert decode_event(close_record(record, 7)).reaction_id == (reaction_id or msgspec.UNSET)


@pytest.mark.parametrize("reaction_id", ["", "x" * 65, "ü" * 33, 7, ["a"]])
@pytest.mark.parametrize("change", [{}, {"emoji_type": "❤"}])
def test_wrong_id_is_named(reaction_id: Any, change: dict[str, str]) -> None:
    """Its bytes count, not its characters."""
    with pytest.raises(Refusal) as caught:
        read(json.dumps([GOOD, {**GOOD, **change, "reaction_id": reaction_id}]).encode(), ARRAY_MAX)
    (error,) = caught.value.errors or ()
    assert (caught.value.status, error["index"], error["field"]) == (422, 1, "reaction_id")
    assert "send text of 1 to 64 bytes, or leave it out" in str(error["detail"])


def test_missing_id_is_no_missing_field() -> None:
    """It is optional."""
    with pytest.raises(Refusal, match=r"also missing: emoji_type, timestamp\. "):
        read(b"{}", ARRAY_MAX)


def test_key_of_a_request_names_its_reactions() -> None:
    """Each differently, the same when it is sent again; a reaction's own id is kept."""
    reactions = read(json.dumps([GOOD, {**GOOD, "reaction_id": "own"}, GOOD]).encode(), ARRAY_MAX)
    once, again, other = (intake.with_ids(reactions, key) for key in ("k" * 300, "k" * 300, "l"))
    assert once == again
    assert once[1].reaction_id == other[1].reaction_id == "own"
    ids = {each.reaction_id for group in (once, other) for each in group}
    assert len(ids) == 5
    assert all(each and len(each) <= 64 for each in ids)


def test_record_keeps_the_text_of_the_timestamp() -> None:
    """The instrument joins by this text, so a UTC timestamp with microseconds stays as it was sent."""
    (record,) = records(read(encode(GOOD), ARRAY_MAX), 1)
    assert decode_event(close_record(record, 2)).timestamp == STAMP


@pytest.mark.parametrize(("item", "field"), [bad for bad in BAD_ITEMS if not isinstance(bad[0], list)])
def test_bad_reaction_is_422_and_names_its_field(item: Any, field: str) -> None:
    """A single bad reaction is refused with its field, and the detail describes a reaction."""
    refusal = refusal_of(json.dumps(item).encode())
    assert refusal.status == 422
    assert refusal.errors is not None
    assert [error["field"] for error in refusal.errors] == [field]
    assert intake.A_REACTION in refusal.detail
    assert f"in field {field}" in refusal.detail if field else "in field" not in refusal.detail


@given(plan=st.lists(st.none() | st.sampled_from(BAD_ITEMS), min_size=1, max_size=12))
def test_every_bad_item_of_an_array_is_named(plan: list[tuple[Any, str] | None]) -> None:
    """The errors are exactly the bad items, by index and field and in order."""
    body = json.dumps([GOOD if each is None else each[0] for each in plan]).encode()
    bad = [(index, each[1]) for index, each in enumerate(plan) if each is not None]
    if not bad:
        assert len(read(body, ARRAY_MAX)) == len(plan)
        return
    refusal = refusal_of(body)
    assert refusal.status == 422
    assert refusal.errors is not None
    assert [(error["index"], error["field"]) for error in refusal.errors] == bad
    assert all(error["detail"] for error in refusal.errors)
    assert f"{len(bad)} item(s), the first at index {bad[0][0]}" in refusal.detail
    assert "nothing was accepted" in refusal.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"not json",
        b"[1, ",
        b'{"user_id": 5, ',
        b"[5]x",
        b"{} {}",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf\xef\xbb\xbf[]",
        b'{"user_id": "\xff"}',
        b'{"user_id": NaN}',
        b"[" * 200_000,
        b'{"a":' * 40_000,
        b"[1," + b"[" * 200_000,
        # A lone surrogate, escaped and raw, where it is read and where a bad field comes before it.
        b'{"user_id": "\\ud83d"}',
        b'{"user_id": "\\ude02\\ud83d"}',
        b'{"user_id": "\xed\xa0\xbd"}',
        b'{"user_id": 5, "emoji_type": "\\ud83d"}',
        b'[{"user_id": 5}, {"user_id": "\xed\xa0\xbd"}]',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_invalid_json_is_400(body: bytes) -> None:
    """Broken syntax, broken text and very deep nesting are 400, even after a wrong field."""
    refusal = refusal_of(body)
    assert refusal.status == 400
    assert "not valid JSON" in refusal.detail
    assert len(refusal.detail) < 500


def test_numbers_out_of_range_are_422() -> None:
    """A number that fits no field is a bad item with its index, not an internal error."""
    refusal = refusal_of(b'[{"user_id": 1e999}, ' + encode(GOOD) + b", " + b"9" * 5_000 + b"]")
    assert refusal.status == 422
    assert refusal.errors is not None
    assert [error["index"] for error in refusal.errors] == [0, 2]


@given(body=st.binary(max_size=200) | JSON.map(json.dumps).map(str.encode) | st.text().map(str.encode))
def test_any_bytes_are_accepted_or_refused(body: bytes) -> None:
    """Any bytes give reactions or a refusal with one of the documented statuses."""
    refusal = None
    try:
        read(body, ARRAY_MAX)
    except Refusal as raised:
        refusal = raised
    if refusal is not None:
        assert refusal.status in {400, 413, 422}
        assert encode({"detail": refusal.detail, "errors": refusal.errors})


@given(body=st.sampled_from([encode(GOOD), encode([GOOD] * 3), encode([GOOD, 5, GOOD])]), data=st.data())
def test_damaged_body_is_accepted_whole_or_not_at_all(body: bytes, data: st.DataObject) -> None:
    """Cutting a body anywhere, or changing one byte, never gives fewer reactions."""
    at = data.draw(st.integers(0, len(body) - 1))
    cut = data.draw(st.booleans())
    damaged = body[:at] if cut else body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
    try:
        accepted = read(damaged, ARRAY_MAX)
    except Refusal:
        return
    assert not cut
    assert len(accepted) == (3 if body.startswith(b"[") else 1)


@pytest.mark.parametrize("item", [GOOD, 5])
@pytest.mark.parametrize("length", [ARRAY_MAX + 1, 10_000])
def test_array_over_the_maximum_is_413(item: Any, length: int) -> None:
    """The detail names both numbers and the remedy, whether the items are good or bad."""
    refusal = refusal_of(json.dumps([item] * length).encode())
    assert refusal.status == 413
    assert f"{length} items, at most 1000" in refusal.detail
    assert "split it" in refusal.detail


def test_array_of_the_maximum_length_or_empty_is_accepted() -> None:
    """The bound is inclusive, and an empty array is valid."""
    assert len(read(encode([GOOD] * ARRAY_MAX), ARRAY_MAX)) == ARRAY_MAX
    assert read(b"[]", ARRAY_MAX) == []


def test_ten_thousand_bad_items_are_all_named() -> None:
    """If the array is within the bound, every index is reported."""
    refusal = refusal_of(json.dumps([5] * 10_000).encode(), array_max=10_000)
    assert refusal.errors is not None
    assert [error["index"] for error in refusal.errors] == list(range(10_000))


def test_user_over_the_rate_is_429_with_retry_after() -> None:
    """An array counts each item for its user; the detail names the user over the limit."""
    limit = RateLimit(3)
    reactions = read(encode([GOOD] * 3 + [{**GOOD, "user_id": "other"}]), ARRAY_MAX)
    intake.check_rate(reactions, limit, 0)
    for more in (reactions, reactions[:1]):
        with pytest.raises(Refusal) as caught:
            intake.check_rate(more, limit, NS_PER_S - 1)
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
        assert "user_id 'fan' sends more than 3 reactions per second" in caught.value.detail
    intake.check_rate(reactions, limit, NS_PER_S)


def test_refused_array_spends_no_other_users_allowance() -> None:
    """One user of an array is over the limit: the others may still send as much as before."""
    limit = RateLimit(3)
    intake.check_rate(read(encode([{**GOOD, "user_id": "loud"}] * 2), ARRAY_MAX), limit, 0)
    for loud, status in ((2, 429), (4, 413)):
        mixed = [{**GOOD, "user_id": "quiet"}] * 3 + [{**GOOD, "user_id": "loud"}] * loud
        with pytest.raises(Refusal) as caught:
            intake.check_rate(read(encode(mixed), ARRAY_MAX), limit, 0)
        assert caught.value.status == status
        assert "user_id 'loud'" in caught.value.detail
    intake.check_rate(read(encode([{**GOOD, "user_id": "quiet"}] * 3), ARRAY_MAX), limit, 0)


def test_generated_load_is_accepted_and_joinable() -> None:
    """Each row of a plan becomes one reaction, and (user_id, timestamp) of its record identifies the row."""
    start_ns = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp()) * NS_PER_S
    plan: pd.DataFrame = poisson_plan(
        user_names(5), 40.0, start_ns, trigger_s=1.0, warm_up_triggers=1, measured_triggers=4, seed=1
    )
    sent = bodies(plan)
    assert len(sent) == len(plan) > 100
    events = [decode_event(close_record(records(read(body, ARRAY_MAX), 1)[0], 2)) for body in sent]
    assert [event.emoji_type for event in events] == list(plan["emoji_type"])
    keys = [(event.user_id, event.timestamp) for event in events]
    assert keys == list(zip(plan["user_id"], map(timestamp_of, plan["t_intended_ns"]), strict=True))
    assert len(set(keys)) == len(keys)
