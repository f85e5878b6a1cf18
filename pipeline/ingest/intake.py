"""From a request body to reactions, or to a refusal that names every error. No I/O.

A body is accepted whole or not at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from pipeline import emojis, timestamps
from pipeline.emojis import canonical, recognise
from pipeline.http_messages import SentReaction
from pipeline.messages import REACTION_ID_MAX_BYTES, USER_ID_MAX, Reaction
from pipeline.problems import Refusal
from pipeline.rate_limit import RateLimit
from pipeline.text_encoding import UTF8_BOM, not_utf8, packing


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An accepted reaction as it waits in the buffer; the flush adds `flushed_ns`."""

    user_id: str
    emoji_type: str
    timestamp: Any
    accepted_ns: int
    reaction_id: str | msgspec.UnsetType = msgspec.UNSET


class Fault(NamedTuple):
    """What is wrong with an item: the field (empty: the item itself) and its value."""

    field: str
    value: Any
    also_missing: tuple[str, ...] = ()


MISSING = object()
_decode = msgspec.json.Decoder(Reaction | list[Reaction]).decode
_decode_syntax = msgspec.json.Decoder(msgspec.Raw).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_item = msgspec.json.Decoder(Reaction).decode
_decode_written = msgspec.json.Decoder(SentReaction).decode
_decode_anything = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
# RecursionError: arrays or objects nested deeper than the decoder follows.
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# To find out what a wrong emoji is takes up to a millisecond, so that only the first of an array are explained.
EXPLAINED_MAX = 10
A_REACTION = '{"user_id": text, "emoji_type": one emoji, "timestamp": ISO 8601}'
EXPECTED = {
    "user_id": f"text of 1 to {USER_ID_MAX} characters, or a whole number from 0 to 2^63 - 1",
    "emoji_type": f"exactly one emoji, such as {emojis.EXAMPLE}",
    "timestamp": timestamps.RULE,
}
EXPECTED_ID = f"text of 1 to {REACTION_ID_MAX_BYTES} bytes, or leave it out"
CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"']+)", re.IGNORECASE)
SHOWN_MAX = 80


def read(body: bytes, array_max: int, headers: Mapping[str, Any] = MappingProxyType({})) -> list[Reaction]:
    """Return the reactions of a JSON body, one object or an array of at most `array_max`.

    Emoji come back in a spelling that Unicode lists, timestamps in UTC, numbers of users as text. A byte order mark is
    ignored, as RFC 8259 permits. `headers` has the names of a WSGI environment; only a refusal reads them. Raises
    Refusal: 400 for invalid JSON or another encoding than UTF-8, 413 for an array that is too long, 415 for a
    compressed body, 422 for a wrong field, with every bad item's index.
    """
    try:
        decoded = _decode(body)
    except msgspec.ValidationError:
        return _read_each(body, array_max, headers)
    except JSON_ERRORS as error:
        unmarked = body.removeprefix(UTF8_BOM)
        if unmarked == body or unmarked.startswith(UTF8_BOM):
            raise _not_json(body, error, headers) from error
        return read(unmarked, array_max, headers)
    if isinstance(decoded, Reaction):
        if canonical(decoded.emoji_type) is not None and decoded.timestamp.tzinfo is UTC and _fits(decoded.reaction_id):
            return [decoded]
        return _all_accepted([_usual(decoded)], single=True)
    reactions: list[Reaction] = decoded
    _check_length(len(reactions), array_max)
    if [
        r
        for r in reactions
        if canonical(r.emoji_type) is None or r.timestamp.tzinfo is not UTC or not _fits(r.reaction_id)
    ]:
        return _all_accepted([_usual(reaction) for reaction in reactions], single=False)
    return reactions


def records(reactions: Sequence[Reaction], accepted_ns: int) -> list[bytes]:
    """Return each reaction as an open JSON object that the flush closes, with its emoji in canonical form."""
    return [
        _encode(
            Accepted(r.user_id, canonical(r.emoji_type) or "", r.timestamp, accepted_ns, r.reaction_id or msgspec.UNSET)
        )[:-1]
        for r in reactions
    ]


def with_ids(reactions: Sequence[Reaction], key: str) -> list[Reaction]:
    """Return the reactions of a request with an Idempotency-Key: one without an id gets one made of the key."""
    digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return [
        reaction if reaction.reaction_id else msgspec.structs.replace(reaction, reaction_id=f"{digest}:{index}")
        for index, reaction in enumerate(reactions)
    ]


def close_record(record: bytes, flushed_ns: int) -> bytes:
    """Return the `Event` JSON of a waiting record."""
    return b'%b,"flushed_ns":%d}' % (record, flushed_ns)


def check_rate(reactions: Sequence[Reaction], limit: RateLimit, now_ns: int) -> None:
    """Raise Refusal 429 if one of the users is over the limit, 413 if the request alone would always be over it."""
    # A Counter is for arrays: for a single reaction it costs more than all the rest of this function.
    single = len(reactions) == 1
    costs = {reactions[0].user_id: 1} if single else Counter(reaction.user_id for reaction in reactions)
    over = limit.first_over(costs, now_ns)
    if over is None:
        return
    # Waiting does not help an array that is over the limit by itself.
    for user_id, cost in costs.items():
        if cost > limit.most:
            raise Refusal(
                413,
                "Too many reactions of one user",
                f"the array has {cost} reactions of user_id {user_id!a}, at most {limit.most} per second "
                "(rate_per_user_s) are allowed: split it",
            )
    raise Refusal(
        429,
        "Too many reactions",
        f"user_id {over!a} sends more than {limit.most} reactions per second (rate_per_user_s): wait a second",
        headers={"Retry-After": "1"},
    )


def too_many_of_address(address: str, most: int) -> Refusal:
    """Return the refusal of reactions of an address that is over the limit `most`."""
    return Refusal(
        429,
        "Too many reactions",
        f"{address} sends more than {most} reactions per second (rate_per_address_s): wait a second",
        headers={"Retry-After": "1"},
    )


def _check_length(length: int, array_max: int) -> None:
    if length > array_max:
        raise Refusal(
            413,
            "Array too long",
            f"the array has {length} items, at most {array_max} (array_max) are allowed: split it",
        )


def _read_each(body: bytes, array_max: int, headers: Mapping[str, Any]) -> list[Reaction]:
    """Decode each item alone: to read users and timestamps in other forms, and to name every bad item."""
    single = False
    try:
        # Decoding stopped at the first wrong field, so the rest may still be invalid JSON.
        _decode_syntax(body)
        try:
            items = _decode_items(body)
        except msgspec.ValidationError:
            single, items = True, [msgspec.Raw(body)]
        _check_length(len(items), array_max)
        found = [_read_item(item) for item in items]
    except JSON_ERRORS as error:
        raise _not_json(body, error, headers) from error
    return _all_accepted(found, single=single)


def _read_item(item: msgspec.Raw) -> Reaction | Fault:
    try:
        return _usual(_decode_item(item))
    except msgspec.ValidationError:
        pass
    try:
        written = _decode_written(item)
    except msgspec.ValidationError as error:
        return _fault(item, str(error))
    moment = timestamps.read(written.timestamp)
    if moment is None:
        return Fault("timestamp", written.timestamp)
    return _usual(Reaction(str(written.user_id), written.emoji_type, moment, written.reaction_id))


def _usual(reaction: Reaction) -> Reaction | Fault:
    """Return `reaction` with its emoji fully qualified and its timestamp in UTC."""
    emoji_type = recognise(reaction.emoji_type)
    if emoji_type is None:
        return Fault("emoji_type", reaction.emoji_type)
    moment = timestamps.in_utc(reaction.timestamp)
    if moment is None:
        return Fault("timestamp", reaction.timestamp.isoformat())
    if not _fits(reaction.reaction_id):
        return Fault("reaction_id", reaction.reaction_id)
    return Reaction(reaction.user_id, emoji_type, moment, reaction.reaction_id)


def _fits(reaction_id: str | None) -> bool:
    """Return whether an id has few enough bytes; of its characters, the decoder has seen to it."""
    return reaction_id is None or reaction_id.isascii() or len(reaction_id.encode()) <= REACTION_ID_MAX_BYTES


def _fault(item: msgspec.Raw, reason: str) -> Fault:
    """Return the fault for which msgspec gave `reason`."""
    _, _, where = reason.partition(" - at `$.")
    field = (where or reason.partition("missing required field `")[2]).rstrip("`")
    try:
        value = _decode_anything(item)
    except msgspec.ValidationError:
        # A number that fits no type.
        return Fault(field, item)
    if not field:
        return Fault("", value)
    also = tuple(name for name in EXPECTED if name != field and name not in value)
    return Fault(field, value.get(field, MISSING), also)


def _all_accepted(found: Sequence[Reaction | Fault], *, single: bool) -> list[Reaction]:
    """Return the reactions in `found`; raise Refusal 422 that names each fault by its index if there is one."""
    faults = [(index, each) for index, each in enumerate(found) if isinstance(each, Fault)]
    if not faults:
        return [each for each in found if isinstance(each, Reaction)]
    errors = [
        {"index": index, "field": fault.field, "detail": _detail(fault, explained=number < EXPLAINED_MAX)}
        for number, (index, fault) in enumerate(faults)
    ]
    first = errors[0]
    where = "the reaction" if single else f"{len(errors)} item(s), the first at index {first['index']}"
    field = f" in field {first['field']}" if first["field"] else ""
    raise Refusal(
        422,
        "Not a reaction",
        f"{where}{field}: {first['detail']}. A reaction is {A_REACTION}; nothing was accepted",
        errors=errors,
    )


def _detail(fault: Fault, *, explained: bool) -> str:
    field, value, also = fault
    if also:
        first = _detail(Fault(field, value), explained=explained)
        return f"{first}; also missing: {', '.join(also)}"
    if value is MISSING:
        return f"it is missing: send {EXPECTED.get(field, field)}"
    if field == "user_id":
        return f"{_shown(value)} is not a user: send {EXPECTED[field]}"
    if field == "reaction_id":
        return f"{_shown(value)} is not an id: send {EXPECTED_ID}"
    if field == "emoji_type":
        why = emojis.why_not(value if explained and isinstance(value, str) else "")
        return f"{_shown(value)} is not one emoji: {why}"
    if field == "timestamp":
        return f"{_shown(value)} is not a timestamp: {timestamps.why_not(value)}"
    return f"{_shown(value)} is not an object: send a reaction as an object, several in an array"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}…")
    text = bytes(value) if isinstance(value, msgspec.Raw) else _encode(value)
    return text[:SHOWN_MAX].decode("utf-8", "replace")


def _not_json(body: bytes, error: Exception, headers: Mapping[str, Any]) -> Refusal:
    coding = headers.get("HTTP_CONTENT_ENCODING", "").strip()
    if coding.lower() not in ("", "identity"):
        return Refusal(
            415,
            "Compressed body",
            f"Content-Encoding is {coding!r}: send the body without compression, and without that header",
            headers={"Accept-Encoding": "identity"},
        )
    charset = CHARSET.search(headers.get("CONTENT_TYPE", ""))
    if packed := packing(body):
        reason = f"it begins like {packed}: send it without compression"
    elif wrong := not_utf8(body, charset[1] if charset and charset[1].lower() not in ("utf-8", "utf8") else ""):
        reason = f"{wrong}: encode it in UTF-8"
    else:
        reason = f"{error}: send one reaction as an object, or several in an array"
    return Refusal(400, "Not JSON", f"the body is not valid JSON: {reason}")
