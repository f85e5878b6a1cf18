"""A reaction's `timestamp`: the forms in which it is accepted, and what is wrong with any other value. No I/O.

The rule is RULE. It covers what databases and languages print where that is unambiguous. In Kafka every timestamp has
one form: RFC 3339 in UTC, with at most microseconds, such as `2025-01-07T12:00:00.250000Z`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

RULE = (
    "a date, a time and a zone in ISO 8601, such as 2025-01-07T12:00:00Z, 2025-01-07T13:00:00.250+01:00 or "
    "2025-01-07 12:00:00+00"
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
_WRITTEN = re.compile(rf"{_DATE}[Tt ]{_TIME}{_ZONE}", re.ASCII)
_WITHOUT_ZONE = re.compile(rf"{_DATE}(?:[Tt ]{_TIME})?(?P<rest>.*)", re.ASCII | re.DOTALL)
# As MySQL prints a moment as a number.
_DIGITS = re.compile(r"(?:19|20)\d\d(?:0\d|1[0-2])(?:[0-2]\d|3[01])(?:[01]\d|2[0-3])[0-5]\d[0-5]\d", re.ASCII)
_NUMBER = re.compile(r"\d{9,19}(?:\.\d*)?", re.ASCII)
# Seconds until the year 5138, ms from 1973 on, and so forth: the magnitude gives the unit of a plausible moment.
_UNITS = ((1e11, 1, "seconds"), (1e14, 1e3, "milliseconds"), (1e17, 1e6, "microseconds"), (1e20, 1e9, "nanoseconds"))


def read(text: str) -> datetime | None:
    """Return the moment that `text` names in one of the forms of RULE, or None."""
    written = _WRITTEN.fullmatch(text.strip()) if len(text) <= _LENGTH_MAX else None
    if written is None:
        return None
    fraction = f".{written['fraction']}" if written["fraction"] else ""
    offset = "Z" if written["utc"] else _offset(written)
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
    text = str(value).strip()[:_LENGTH_MAX] if isinstance(value, str | int | float) else ""
    if _DIGITS.fullmatch(text):
        return "it has neither a T between date and time nor a zone"
    if _NUMBER.fullmatch(text):
        number = float(text)
        per_s, unit = next((per_s, unit) for most, per_s, unit in _UNITS if number < most)
        moment = datetime.fromtimestamp(number / per_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"a number does not say its unit (in {unit} since 1970 it is {moment})"
    if not isinstance(value, str):
        return "it is not text"
    if len(value) > _LENGTH_MAX:
        return f"it has more than {_LENGTH_MAX} characters"
    written = _WITHOUT_ZONE.fullmatch(text)
    if written is None:
        return "it is not in ISO 8601"
    if written["hour"] is None:
        return "it has no time" if not written["rest"] else "it is not in ISO 8601"
    if not written["rest"]:
        return "it has no zone (add Z if it is UTC, or an offset such as +01:00)"
    if not _WRITTEN.fullmatch(text):
        return f"its zone, {written['rest'].strip()!r}, is not Z or an offset such as +01:00"
    return "there is no such date, time or offset in the years 1 to 9999"


def _offset(written: re.Match[str]) -> str:
    sign = "+" if written["sign"] == "+" else "-"
    return f"{sign}{written['hours']}:{written['minutes'] or '00'}"
