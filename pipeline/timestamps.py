"""A reaction's `timestamp`: the forms in which it is accepted, and what is wrong with any other value. No I/O.

The rule is RULE. It covers what databases, languages and other projects' clients send. In Kafka every timestamp has one
form: RFC 3339 in UTC, with at most microseconds, such as `2025-01-07T12:00:00.250000Z`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import msgspec

RULE = (
    "a date and a time in ISO 8601, in UTC unless they have a zone, or a number since 1970, such as "
    "2025-01-07T12:00:00Z, 2025-01-07T13:00:00.250+01:00 or 1736251200"
)
# The longest text that is examined.
_LENGTH_MAX = 100

_DATE = r"(?P<year>\d{4})-?(?P<month>\d\d)-?(?P<day>\d\d)"
_TIME = r"(?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
# Go prints an offset and "UTC" after it, Java the name of the zone in brackets: the offset decides.
_ZONE = (
    r" ?(?:(?P<utc>[Zz]|UTC|GMT)|(?P<sign>[+\u2212-])(?P<hours>\d\d)(?::?(?P<minutes>\d\d))?(?: UTC)?)"
    r"(?:\[[A-Za-z0-9_/+-]+\])?"
)
_WRITTEN = re.compile(rf"{_DATE}[Tt ]{_TIME}(?:{_ZONE})?", re.ASCII)
_DATE_AND_REST = re.compile(rf"{_DATE}(?:[Tt ]{_TIME})?(?P<rest>.*)", re.ASCII | re.DOTALL)
# As MySQL prints a moment as a number.
_DIGITS = re.compile(r"(?:19|20)\d\d(?:0\d|1[0-2])(?:[0-2]\d|3[01])(?:[01]\d|2[0-3])[0-5]\d[0-5]\d", re.ASCII)
# The number of digits gives the unit of any moment from 1973 to 2286. It is not a date and time without separators:
# those have 8 or 14 digits.
_NUMBER = re.compile(r"(?P<whole>[1-9](?:\d{8,9}|\d{11,12}|\d{14,15}|\d{17,18}))(?:\.\d+)?", re.ASCII)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


def read(value: str | float) -> datetime | None:
    """Return the moment that `value` names in one of the forms of RULE, or None.

    A number may be text. It counts seconds, milliseconds, microseconds or nanoseconds, as its digits say.
    """
    text = (value if isinstance(value, str) else f"{value:.6f}" if isinstance(value, float) else str(value)).strip()
    if len(text) > _LENGTH_MAX:
        return None
    if number := _NUMBER.fullmatch(text):
        # 9 or 10 digits are seconds; three more are a thousandth of that.
        per_s = 10 ** ((len(number["whole"]) - 9) // 3 * 3)
        return _FIRST + timedelta(microseconds=round(Fraction(text) * 1_000_000 / per_s))
    written = _WRITTEN.fullmatch(text)
    if written is None:
        return None
    fraction = f".{written['fraction']}" if written["fraction"] else ""
    offset = _offset(written) if written["sign"] else "Z"
    try:
        # The decoder of the usual path reads it, so that both round alike.
        return msgspec.convert(
            f"{written['year']}-{written['month']}-{written['day']}T"
            f"{written['hour']}:{written['minute']}:{written['second'] or '00'}{fraction}{offset}",
            datetime,
        )
    except msgspec.ValidationError:
        return None


def in_utc(moment: datetime) -> datetime | None:
    """Return `moment` in UTC, or None where that is before the year 1 or after 9999."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None


def why_not(value: Any) -> str:
    """Return what is wrong with `value`, which is not a timestamp, and what to send instead; no end of sentence."""
    return f"{_fault(value)}; send {RULE}"


def _fault(value: Any) -> str:
    if _DIGITS.fullmatch(str(value).strip()[:_LENGTH_MAX]):
        return "it has no T between date and time"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "it is not a time from 1973 to 2286 in seconds, milliseconds, microseconds or nanoseconds"
    if not isinstance(value, str):
        return "it is neither text nor a number"
    if len(value) > _LENGTH_MAX:
        return f"it has more than {_LENGTH_MAX} characters"
    text = value.strip()
    written = _DATE_AND_REST.fullmatch(text)
    if written is None:
        return "it is not in ISO 8601"
    if written["hour"] is None:
        return "it has no time" if not written["rest"] else "it is not in ISO 8601"
    if not _WRITTEN.fullmatch(text):
        return f"its zone, {written['rest'].strip()!r}, is not Z or an offset such as +01:00"
    return "there is no such date, time or offset in the years 1 to 9999"


def _offset(written: re.Match[str]) -> str:
    sign = "+" if written["sign"] == "+" else "-"
    return f"{sign}{written['hours']}:{written['minutes'] or '00'}"
