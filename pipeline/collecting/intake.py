"""From a request body to reactions that may be counted, or to what is wrong with it. No I/O.

Nothing of a body is accepted unless all of it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.collecting.rate import RateLimit
from pipeline.emojis import canonical
from pipeline.messages import Reaction


class Refusal(Exception):
    """Why a request is not accepted: the HTTP status, a title, a detail, and each bad item of an array."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        errors: list[dict[str, Any]] | None = None,
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An accepted reaction as it waits in the buffer; the flush adds `flushed_ns`."""

    user_id: str
    emoji_type: str
    timestamp: Any
    accepted_ns: int


_decode = msgspec.json.Decoder(Reaction | list[Reaction]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def read(body: bytes, array_max: int) -> list[Reaction]:
    """Return the reactions of a JSON body, one object or an array of at most `array_max`.

    Raises Refusal: 400 for what is no JSON, 413 for too long an array, 422 for a wrong field, with every bad
    item's index.
    """
    try:
        decoded = _decode(body)
    except msgspec.ValidationError as error:
        raise _explain(body, str(error), array_max) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "Not JSON", f"the body is not valid JSON: {error}") from error
    reactions = [decoded] if isinstance(decoded, Reaction) else decoded
    _check_length(len(reactions), array_max)
    unknown = [index for index, reaction in enumerate(reactions) if canonical(reaction.emoji_type) is None]
    if unknown:
        errors = [
            {
                "index": index,
                "field": "emoji_type",
                "detail": f"{reactions[index].emoji_type!a} is not one emoji: send exactly one, e.g. \\U0001f602 😂",
            }
            for index in unknown
        ]
        raise _unprocessable(errors, isinstance(decoded, Reaction))
    return reactions


def records(reactions: Sequence[Reaction], accepted_ns: int) -> list[bytes]:
    """Return each reaction as the open JSON object that the flush closes; emoji in their canonical form."""
    return [
        _encode(Accepted(r.user_id, canonical(r.emoji_type) or "", r.timestamp, accepted_ns))[:-1] for r in reactions
    ]


def close_record(record: bytes, flushed_ns: int) -> bytes:
    """Return the `Event` JSON of a waiting record."""
    return b'%b,"flushed_ns":%d}' % (record, flushed_ns)


def check_rate(reactions: Sequence[Reaction], limit: RateLimit, now_ns: int) -> None:
    """Raise Refusal 429 if one of the users is over the limit."""
    # Counting is for arrays: on the path of a single reaction it costs more than all the rest of this.
    one = len(reactions) == 1
    costs = {reactions[0].user_id: 1} if one else Counter(reaction.user_id for reaction in reactions)
    for user_id, cost in costs.items():
        if not limit.hit(user_id, cost, now_ns):
            raise Refusal(
                429,
                "Too many reactions",
                f"user_id {user_id!a} sends more than {limit.per_s} reactions a second: wait a second",
                retry_after_s=1,
            )


def _check_length(length: int, array_max: int) -> None:
    if length > array_max:
        raise Refusal(413, "Array too long", f"the array has {length} items, at most {array_max} are taken: split it")


def _explain(body: bytes, reason: str, array_max: int) -> Refusal:
    """Look at each item by itself, to name every bad one; only refused requests pay for it."""
    raw = _decode_any(body)
    if not isinstance(raw, list):
        return _unprocessable([_item_error(0, raw) or {"index": 0, "field": "", "detail": reason}], single=True)
    try:
        _check_length(len(raw), array_max)
    except Refusal as refusal:
        return refusal
    errors = [error for index, item in enumerate(raw) if (error := _item_error(index, item)) is not None]
    return _unprocessable(errors, single=False)


def _item_error(index: int, item: object) -> dict[str, Any] | None:
    try:
        reaction = msgspec.convert(item, Reaction)
    except msgspec.ValidationError as error:
        detail, _, where = str(error).partition(" - at `$.")
        return {"index": index, "field": where.rstrip("`"), "detail": detail}
    if canonical(reaction.emoji_type) is None:
        return {"index": index, "field": "emoji_type", "detail": f"{reaction.emoji_type!a} is not one emoji"}
    return None


def _unprocessable(errors: list[dict[str, Any]], single: bool) -> Refusal:
    first = errors[0]
    place = "the reaction" if single else f"{len(errors)} item(s), the first at index {first['index']}"
    field = f" in field {first['field']}" if first["field"] else ""
    return Refusal(
        422,
        "Not a reaction",
        f"{place}{field}: {first['detail']}. A reaction is "
        '{"user_id": text, "emoji_type": one emoji, "timestamp": ISO 8601 with a zone}; nothing was accepted',
        errors,
    )
