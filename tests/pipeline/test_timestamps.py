"""The timestamps that are accepted, the moments that they name, and what is said of all others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import timestamps

NOON = datetime(2025, 1, 7, 12, tzinfo=UTC)
HTTP_API = Path(__file__).parents[2] / "docs" / "http-api.md"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-01-07T12:00:00Z", NOON),
        ("2025-01-07t12:00:00z", NOON),
        ("2025-01-07 12:00:00+00", NOON),  # PostgreSQL
        ("2025-01-07 12:00:00.5+00", NOON + timedelta(seconds=0.5)),
        ("2025-01-07 12:00:00 UTC", NOON),  # BigQuery, Ruby, Rust
        ("2025-01-07 12:00:00 GMT", NOON),
        ("2025-01-07 12:00:00.0000000 +00:00", NOON),  # SQL Server
        ("2025-01-07 12:00:00.000000+0000", NOON),  # Cassandra
        ("2025-01-07 12:00:00.25 +0000 UTC", NOON + timedelta(seconds=0.25)),  # Go
        ("2025-01-07T13:00:00+01:00[Europe/Paris]", NOON),  # Java
        ("2025-01-07T12:00:00Z[UTC]", NOON),
        ("2025-01-07T12:00:00,250000000+00:00", NOON + timedelta(seconds=0.25)),  # date -Ins
        ("2025-01-07T12:00Z", NOON),
        ("20250107T120000Z", NOON),
        ("20250107T1200+0000", NOON),
        ("20250107T120000.5+0530", NOON + timedelta(seconds=0.5) - timedelta(hours=5.5)),
        ("2025-01-07T07:00:00\u221205:00", NOON),
        (" 2025-01-07T12:00:00Z\n", NOON),
        ("2025-01-07T12:00:00.123456789Z", NOON + timedelta(microseconds=123457)),
        ("2025-01-07T12:00:00.250", NOON + timedelta(seconds=0.25)),  # Python's datetime.now().isoformat()
        ("2025-01-07 12:00:00", NOON),  # SQL's timestamp without time zone, strftime
        ("20250107T1200", NOON),
    ],
)
def test_form_is_read(text: str, moment: datetime) -> None:
    """As databases, languages and commands print a moment; without a zone it is in UTC."""
    assert timestamps.read(text) == moment


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (1736251200, NOON),
        (1736251200.25, NOON + timedelta(seconds=0.25)),  # Python's time.time()
        (1736251200000, NOON),  # JavaScript's Date.now()
        (1736251200250.5, NOON + timedelta(seconds=0.2505)),
        (1736251200000001, NOON + timedelta(microseconds=1)),
        (1736251200000001499, NOON + timedelta(microseconds=1)),  # Python's time.time_ns()
        (100_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        (9_999_999_999, datetime(2286, 11, 20, 17, 46, 39, tzinfo=UTC)),
        (100_000_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        (9_999_999_999_999, datetime(2286, 11, 20, 17, 46, 39, 999_000, tzinfo=UTC)),
    ],
)
def test_digits_of_a_number_give_its_unit(number: float, moment: datetime) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds of one moment never have the same number of digits."""
    assert timestamps.read(number) == moment
    assert timestamps.read(f" {number}") == moment


@given(
    moment=st.datetimes(datetime(1974, 1, 1), datetime(2286, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    per_s=st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]),
)
def test_every_number_is_read_in_its_unit(moment: datetime, per_s: int) -> None:
    """A whole number of any unit gives its moment, to the microsecond that Kafka gets."""
    number = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * per_s // 1_000_000
    read = timestamps.read(number)
    assert read is not None
    assert timedelta(0) <= moment - read < timedelta(seconds=1 / per_s) or read == moment


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("2025-01-07", "it has no time"),
        ("2025-01-07T12:00:00 CET", "its zone, 'CET', is not Z or an offset such as +01:00"),
        ("2025-01-07T12:00:00+1", "its zone, '+1', is not Z or an offset"),
        ("2025-02-30T12:00Z", "there is no such date, time or offset"),
        ("2025-01-07T12:00:60Z", "there is no such date, time or offset"),
        ("2025-01-07T24:00:00Z", "there is no such date, time or offset"),
        ("2025-01-07T12:00:00+99:00", "there is no such date, time or offset"),
        ("0000-01-01T00:00:00Z", "there is no such date, time or offset"),
        ("9999-12-31T23:59:59.9999999Z", "there is no such date, time or offset in the years 1 to 9999"),
        ("Tue, 07 Jan 2025 12:00:00 GMT", "it is not in ISO 8601"),
        ("2025/01/07 12:00:00Z", "it is not in ISO 8601"),
        ("2025-W02-2T12:00Z", "it is not in ISO 8601"),
        ("12:00:00Z", "it is not in ISO 8601"),
        ("\u0662\u0660\u0662\u0665-01-07T12:00Z", "it is not in ISO 8601"),
        ("", "it is not in ISO 8601"),
        ("2025-01-07T12:00:00." + "0" * 500 + "Z", "it has more than 100 characters"),
        ("20250107120000", "it has no T between date and time"),
        (20250107120000, "it has no T between date and time"),
        ("2025-01-07T12:00:00[Europe/Paris]", "its zone, '[Europe/Paris]', is not Z"),
        ("12:00:00.000001 07-01-2025", "it is not in ISO 8601"),
        (-5, "it is not a time from 1973 to 2286 in seconds, milliseconds, microseconds or nanoseconds"),
        (5, "it is not a time from 1973 to 2286 in seconds"),
        (17_362_512_000, "it is not a time from 1973 to 2286 in seconds"),
        (1e300, "it is not a time from 1973 to 2286 in seconds"),
        (True, "it is neither text nor a number"),
        (None, "it is neither text nor a number"),
        ({"$date": 1736251200000}, "it is neither text nor a number"),
    ],
)
def test_other_value_is_refused_with_the_rule(value: Any, fault: str) -> None:
    """The message says what is wrong with it, and gives the rule with examples that work."""
    assert not isinstance(value, str | int | float) or isinstance(value, bool) or timestamps.read(value) is None
    assert fault in timestamps.why_not(value)
    assert timestamps.why_not(value).endswith(f"; send {timestamps.RULE}")


def test_documents_have_the_words_of_the_error() -> None:
    """The rule of the error is that of the interface, and its examples are read."""
    document = " ".join(HTTP_API.read_text(encoding="utf-8").replace("`", "").split())
    assert timestamps.RULE in document
    examples = timestamps.RULE.partition("such as ")[2].replace(" or ", ", ").split(", ")
    assert len(examples) == 3
    assert all(timestamps.read(example) for example in examples)


@given(
    moment=st.datetimes(
        datetime(2, 1, 1),  # noqa: DTZ001
        datetime(9998, 1, 1),  # noqa: DTZ001
        timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    ),
    separator=st.sampled_from("Tt "),
    basic=st.booleans(),
)
def test_form_changes_nothing_of_the_moment(moment: datetime, separator: str, basic: bool) -> None:
    """However a moment is written, it is the same one; in UTC it has one form."""
    text = moment.isoformat(sep=separator)
    if basic:
        text = text[:10].replace("-", "") + separator + text[11:].replace(":", "")
    read = timestamps.read(text)
    assert read == moment
    in_utc = timestamps.in_utc(read)
    assert in_utc == moment
    assert msgspec.json.encode(in_utc).endswith(b'Z"')


def test_moment_out_of_range_in_utc_is_none() -> None:
    """The first hours of the year 1 in an eastern zone are before it in UTC."""
    assert timestamps.in_utc(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))) is None


@given(text=st.text(max_size=120) | st.from_regex(r"[0-9]{1,25}(\.[0-9]*)?", fullmatch=True))
def test_any_text_is_read_or_explained(text: str) -> None:
    """No text makes the explanation fail."""
    assert timestamps.read(text) is not None or timestamps.RULE in timestamps.why_not(text)
