"""Decoding records: an unreadable one is logged, counted and skipped, and the others are yielded."""

from __future__ import annotations

from structlog.testing import capture_logs

from pipeline.bus.base import Record
from pipeline.bus.records import keyed, readable
from pipeline.messages import ClusterRoute, decode_cluster_route, encode

ROUTE = ClusterRoute("a", 7)


def records(*pairs: tuple[bytes | None, bytes | None]) -> list[Record]:
    """Return records with these keys and values, from offset 0 on."""
    return [Record(0, offset, 0, key, value) for offset, (key, value) in enumerate(pairs)]


def test_unreadable_record_is_logged_counted_and_skipped() -> None:
    """The log names what was expected, where the record is and why it was not read."""
    skipped: list[tuple[int, str]] = []
    topic = records((None, encode(ROUTE)), (None, b"nonsense"), (None, None), (None, encode(ROUTE)))
    with capture_logs() as logged:
        read = list(
            readable(
                topic, decode_cluster_route, "route", lambda record, reason: skipped.append((record.offset, reason))
            )
        )
    assert read == [(topic[0], ROUTE), (topic[3], ROUTE)]
    assert [(entry["event"], entry["expected"], entry["offset"]) for entry in logged] == [
        ("skipped an unreadable record", "route", 1),
        ("skipped an unreadable record", "route", 2),
    ]
    assert "not a ClusterRoute" in logged[0]["reason"]
    assert skipped == [(entry["offset"], entry["reason"]) for entry in logged]


def test_keyed_yields_tombstones_and_skips_records_without_key() -> None:
    """A tombstone's message is None; an unreadable record leaves its key out."""
    topic = records((b"a", encode(ROUTE)), (None, encode(ROUTE)), (b"b", b"nonsense"), (b"a", None))
    assert list(keyed(topic, decode_cluster_route, "route")) == [("a", ROUTE), ("a", None)]
