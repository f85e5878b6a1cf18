"""The status of a chain: sums, rates and quantiles of the records read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.messages import Announcement, TypeCount, Window
from pipeline.registry.web.alerts import Member
from pipeline.registry.web.status import SAMPLES, WINDOWS, ChainStatus, quantile
from pipeline.streaming_progress import StreamingProgress, decode_progress
from pipeline.units import NS_PER_S

T = 6.0
NOW = 1_800_000_000 * NS_PER_S


def a_window(number: int, total: int = 10, age_s: float = 1.0, malformed: int = 0) -> Window:
    """Return a window that was emitted `age_s` ago, half a second after its trigger."""
    emitted_ns = NOW - round(age_s * NS_PER_S)
    kinds = [TypeCount("😂", total, 1), TypeCount("🎉", 0, 0)]
    return Window("e", number, emitted_ns - NS_PER_S // 2, emitted_ns, {}, total, kinds, malformed)


def some_progress(number: int, took_ms: int = 350, rows: int = 10, **read: int) -> StreamingProgress:
    """Return Spark's progress of one micro-batch, decoded from JSON."""
    document = {
        "id": "0",
        "batchId": number,
        "timestamp": "2027-01-15T08:00:00.000Z",
        "numInputRows": rows,
        "durationMs": {"addBatch": took_ms - 50, "triggerExecution": took_ms},
        "sources": [
            {"description": "KafkaV2", "startOffset": None, "endOffset": {"emoji-events": read} if read else None}
        ],
    }
    return decode_progress(msgspec.json.encode(document))


def document_of(status: ChainStatus, *members: Member) -> dict[str, Any]:
    """Return the document, encoded to JSON and decoded."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(status.document(members, NOW)))
    return document


def test_unknown_values_are_null() -> None:
    """Without records every figure is null, not zero."""
    document = document_of(ChainStatus(T))
    assert (document["arriving_per_s"], document["lag"]) == (None, None)
    assert document["batch"] == {"newest_s": None, "p50_s": None, "p95_s": None, "headroom": None}
    assert (document["windows"], document["batches"], document["samples"], document["subscribers"]) == ([], [], [], [])


def test_windows_of_the_last_minute_are_summed_once() -> None:
    """A window emitted again after a crash counts once; an old window does not count."""
    status = ChainStatus(T)
    for window in (a_window(1, 500, 70), a_window(2, 90, 10), a_window(3, 30, 4, 2), a_window(3, 30, 4, 2)):
        status.add_window(window)
    document = document_of(status)
    assert document["counted_per_s"] == 2.0
    assert document["malformed"] == 2
    assert [(row["id"], row["total"], row["published_s"]) for row in document["windows"]] == [
        ("e:1", 500, 0.5),
        ("e:2", 90, 0.5),
        ("e:3", 30, 0.5),
    ]


def test_lag_is_appended_minus_read() -> None:
    """Per partition: records read since the ends were sampled give no negative lag; an unread partition is all lag."""
    status = ChainStatus(T)
    status.add_ends({0: 100, 1: 50}, NOW - 4 * NS_PER_S)
    status.add_progress(some_progress(1, **{"0": 90, "1": 60}))
    status.add_ends({0: 100, 1: 50, 2: 7}, NOW - 2 * NS_PER_S)
    document = document_of(status)
    assert document["lag"] == 17
    assert [sample["lag"] for sample in document["samples"]] == [None, 17]


def test_arriving_rate_is_over_five_samples() -> None:
    """This smooths ingest's bursts."""
    status = ChainStatus(T)
    for index, end in enumerate((0, 1000, 1000, 1000, 1000, 2000)):
        status.add_ends({0: end}, NOW + 2 * index * NS_PER_S)
    document = document_of(status)
    assert document["arriving_per_s"] == 200.0
    assert [sample["arriving_per_s"] for sample in document["samples"]][:3] == [None, 500.0, 250.0]


def test_idle_triggers_are_not_batches() -> None:
    """Idle triggers are not shown, but their offsets count as read."""
    status = ChainStatus(T)
    for number, took_ms in enumerate((200, 400, 300, 3000)):
        status.add_progress(some_progress(number, took_ms))
    status.add_progress(some_progress(4, 5, rows=0, **{"0": 3}))
    status.add_ends({0: 3}, NOW)
    document = document_of(status)
    assert document["batch"] == {"newest_s": 3.0, "p50_s": 0.3, "p95_s": 3.0, "headroom": 0.5}
    assert [row["batch_s"] for row in document["batches"]] == [0.2, 0.4, 0.3, 3.0]
    assert document["lag"] == 0


def test_memory_is_bounded() -> None:
    """Only the newest windows and samples are kept, and windows without their lists of types."""
    status = ChainStatus(T)
    for number in range(SAMPLES + WINDOWS):
        status.add_window(a_window(number))
        status.add_ends({0: number}, NOW + number * NS_PER_S)
    document = document_of(status)
    assert (len(document["windows"]), len(document["samples"])) == (WINDOWS, SAMPLES)
    assert "reactions" not in document["windows"][0]


def test_only_clients_of_live_subscribers_are_watching() -> None:
    """The last count of a silent subscriber is ignored."""
    live = Member(Announcement("a", "1", "http://a", 7, NOW - NS_PER_S, "e:3"), live=True, age_ns=NS_PER_S)
    silent = Member(Announcement("b", "1", "http://b", 5, NOW - 9 * NS_PER_S), live=False, age_ns=9 * NS_PER_S)
    document = document_of(ChainStatus(T), live, silent)
    assert document["watching"] == 7
    assert [(row["subscriber"], row["clients"], row["live"], row["age_s"]) for row in document["subscribers"]] == [
        ("a", 7, True, 1.0),
        ("b", 5, False, 9.0),
    ]


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([], 0.5, None), ([1.0], 0.95, 1.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), ([1.0, 2.0], 0.0, 1.0)],
)
def test_quantile_is_one_of_the_values(values: list[float], q: float, expected: float | None) -> None:
    """It is the value at the rank, without interpolation."""
    assert quantile(values, q) == expected
