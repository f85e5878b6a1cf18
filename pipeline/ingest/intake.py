"""From a request body to reactions, or to a refusal that names every error. No I/O.

A body is accepted whole or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.emojis import canonical
from pipeline.messages import Reaction
from pipeline.problems import Refusal
from pipeline.rate_limit import RateLimit


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An accepted reaction as it waits in the buffer; the flush adds `flushed_ns`."""

    user_id: str
    emoji_type: str
    timestamp: Any
    accepted_ns: int


_decode = msgspec.json.Decoder(Reaction | list[Reaction]).decode
_decode_syntax = msgspec.json.Decoder(msgspec.Raw).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_item = msgspec.json.Decoder(Reaction).decode
_encode = msgspec.json.Encoder().encode
# RecursionError: arrays or objects nested deeper than the decoder follows.
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read(body: bytes, array_max: int) -> list[Reaction]:
    """Return the reactions of a JSON body, one object or an array of at most `array_max`.

    Raises Refusal: 400 for invalid JSON, 413 for an array that is too long, 422 for a wrong field, with every bad
    item's index.
    """
    try:
        decoded = _decode(body)
    except msgspec.ValidationError as error:
        raise _explain(body, str(error), array_max) from error
    except JSON_ERRORS as error:
        raise _not_json(error) from error
    reactions = [decoded] if isinstance(decoded, Reaction) else decoded
    _check_length(len(reactions), array_max)
    invalid = [index for index, reaction in enumerate(reactions) if canonical(reaction.emoji_type) is None]
    if invalid:
        errors = [
            {
                "index": index,
                "field": "emoji_type",
                "detail": _not_one_emoji(reactions[index]),
            }
            for index in invalid
        ]
        raise _unprocessable(errors, isinstance(decoded, Reaction))
    return reactions


def records(reactions: Sequence[Reaction], accepted_ns: int) -> list[bytes]:
    """Return each reaction as an open JSON object that the flush closes, with its emoji in canonical form."""
    return [
        _encode(Accepted(r.user_id, canonical(r.emoji_type) or "", r.timestamp, accepted_ns))[:-1] for r in reactions
    ]


def close_record(record: bytes, flushed_ns: int) -> bytes:
    """Return the `Event` JSON of a waiting record."""
    return b'%b,"flushed_ns":%d}' % (record, flushed_ns)


def check_rate(reactions: Sequence[Reaction], limit: RateLimit, now_ns: int) -> None:
    """Raise Refusal 429 if one of the users is over the limit."""
    # A Counter is for arrays: for a single reaction it costs more than all the rest of this function.
    single = len(reactions) == 1
    costs = {reactions[0].user_id: 1} if single else Counter(reaction.user_id for reaction in reactions)
    for user_id, cost in costs.items():
        if not limit.hit(user_id, cost, now_ns):
            raise Refusal(
                429,
                "Too many reactions",
                f"user_id {user_id!a} sends more than {limit.most} reactions per second (rate_per_user_s): "
                "wait a second",
                headers={"Retry-After": "1"},
            )


def _check_length(length: int, array_max: int) -> None:
    if length > array_max:
        raise Refusal(
            413,
            "Array too long",
            f"the array has {length} items, at most {array_max} (array_max) are allowed: split it",
        )


def _explain(body: bytes, reason: str, array_max: int) -> Refusal:
    """Decode each item alone, to name every bad one; only refused requests pay for it."""
    try:
        # Decoding stopped at the first wrong field, so the rest may still be invalid JSON.
        _decode_syntax(body)
        items = _decode_items(body)
    except msgspec.ValidationError:
        return _unprocessable([_field_error(0, reason)], single=True)
    except JSON_ERRORS as error:
        return _not_json(error)
    try:
        _check_length(len(items), array_max)
        checked = (_item_error(index, item) for index, item in enumerate(items))
        errors = [error for error in checked if error is not None]
    except Refusal as refusal:
        return refusal
    except JSON_ERRORS as error:
        return _not_json(error)
    return _unprocessable(errors, single=False)


def _not_json(error: Exception) -> Refusal:
    return Refusal(400, "Not JSON", f"the body is not valid JSON: {error}")


def _field_error(index: int, reason: str) -> dict[str, Any]:
    detail, _, where = reason.partition(" - at `$.")
    missing = detail.partition("missing required field `")[2]
    return {"index": index, "field": (where or missing).rstrip("`"), "detail": detail}


def _item_error(index: int, item: msgspec.Raw) -> dict[str, Any] | None:
    try:
        reaction = _decode_item(item)
    except msgspec.ValidationError as error:
        return _field_error(index, str(error))
    if canonical(reaction.emoji_type) is None:
        return {"index": index, "field": "emoji_type", "detail": _not_one_emoji(reaction)}
    return None


def _not_one_emoji(reaction: Reaction) -> str:
    return f"{reaction.emoji_type!a} is not one emoji: send exactly one, e.g. \\U0001f602 😂"


def _unprocessable(errors: list[dict[str, Any]], single: bool) -> Refusal:
    first = errors[0]
    where = "the reaction" if single else f"{len(errors)} item(s), the first at index {first['index']}"
    field = f" in field {first['field']}" if first["field"] else ""
    return Refusal(
        422,
        "Not a reaction",
        f"{where}{field}: {first['detail']}. A reaction is "
        '{"user_id": text, "emoji_type": one emoji, "timestamp": ISO 8601 with a zone}; nothing was accepted',
        errors=errors,
    )
