"""The account of a chain: sums, rates and quantiles of what was read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.messages import Announcement, TypeCount, Window
from pipeline.registry.web.alerts import Member
from pipeline.registry.web.status import SAMPLES, WINDOWS, ChainStatus, quantile
from pipeline.streaming_progress import StreamingProgress, decode_progress

T = 6.0
NS = 1_000_000_000
NOW = 1_800_000_000 * NS


def a_window(number: int, total: int = 10, age_s: float = 1.0, malformed: int = 0) -> Window:
    """A window that was emitted `age_s` ago, half a second after its trigger."""
    emitted_ns = NOW - round(age_s * NS)
    kinds = [TypeCount("😂", total, 1), TypeCount("🎉", 0, 0)]
    return Window("e", number, emitted_ns - NS // 2, emitted_ns, {}, total, kinds, malformed)


def a_report(number: int, took_ms: int = 350, rows: int = 10, **read: int) -> StreamingProgress:
    """Spark's report of one micro-batch, as JSON tells it."""
    said = {
        "id": "0",
        "batchId": number,
        "timestamp": "2027-01-15T08:00:00.000Z",
        "numInputRows": rows,
        "durationMs": {"addBatch": took_ms - 50, "triggerExecution": took_ms},
        "sources": [
            {"description": "KafkaV2", "startOffset": None, "endOffset": {"emoji-events": read} if read else None}
        ],
    }
    return decode_progress(msgspec.json.encode(said))


def told(account: ChainStatus, *members: Member) -> dict[str, Any]:
    """The document, by way of JSON."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(account.document(members, NOW)))
    return document


def test_an_account_of_nothing_knows_nothing() -> None:
    """What is not known is null, never zero."""
    document = told(ChainStatus(T))
    assert (document["arriving_per_s"], document["lag"]) == (None, None)
    assert document["batch"] == {"newest_s": None, "p50_s": None, "p95_s": None, "headroom": None}
    assert (document["windows"], document["batches"], document["samples"], document["subscribers"]) == ([], [], [], [])


def test_windows_are_summed_over_the_last_minute_and_counted_once() -> None:
    """A window emitted again after a crash counts once; an old one no longer."""
    account = ChainStatus(T)
    for window in (a_window(1, 500, 70), a_window(2, 90, 10), a_window(3, 30, 4, 2), a_window(3, 30, 4, 2)):
        account.take_window(window)
    document = told(account)
    assert document["counted_per_s"] == 2.0
    assert document["malformed"] == 2
    assert [(row["id"], row["total"], row["published_s"]) for row in document["windows"]] == [
        ("e:1", 500, 0.5),
        ("e:2", 90, 0.5),
        ("e:3", 30, 0.5),
    ]


def test_lag_is_what_was_appended_less_what_was_read() -> None:
    """Each partition for itself: what was read since the look-up is no negative lag; an unread partition is lag."""
    account = ChainStatus(T)
    account.take_ends({0: 100, 1: 50}, NOW - 4 * NS)
    account.take_report(a_report(1, **{"0": 90, "1": 60}))
    account.take_ends({0: 100, 1: 50, 2: 7}, NOW - 2 * NS)
    document = told(account)
    assert document["lag"] == 17
    assert [sample["lag"] for sample in document["samples"]] == [None, 17]


def test_the_arriving_rate_smooths_over_ten_seconds() -> None:
    """Ingest flushes in bursts; a rate is over five samples."""
    account = ChainStatus(T)
    for place, end in enumerate((0, 1000, 1000, 1000, 1000, 2000)):
        account.take_ends({0: end}, NOW + 2 * place * NS)
    document = told(account)
    assert document["arriving_per_s"] == 200.0
    assert [sample["arriving_per_s"] for sample in document["samples"]][:3] == [None, 500.0, 250.0]


def test_batches_are_those_that_read_something() -> None:
    """Idle triggers are no micro-batches, but say what has been read."""
    account = ChainStatus(T)
    for number, took_ms in enumerate((200, 400, 300, 3000)):
        account.take_report(a_report(number, took_ms))
    account.take_report(a_report(4, 5, rows=0, **{"0": 3}))
    account.take_ends({0: 3}, NOW)
    document = told(account)
    assert document["batch"] == {"newest_s": 3.0, "p50_s": 0.3, "p95_s": 3.0, "headroom": 0.5}
    assert [row["batch_s"] for row in document["batches"]] == [0.2, 0.4, 0.3, 3.0]
    assert document["lag"] == 0


def test_memory_is_bounded() -> None:
    """The oldest is forgotten, and of a window its list of types."""
    account = ChainStatus(T)
    for number in range(SAMPLES + WINDOWS):
        account.take_window(a_window(number))
        account.take_ends({0: number}, NOW + number * NS)
    document = told(account)
    assert (len(document["windows"]), len(document["samples"])) == (WINDOWS, SAMPLES)
    assert "reactions" not in document["windows"][0]


def test_the_watching_are_those_of_live_subscribers() -> None:
    """A silent subscriber's last count is no audience."""
    live = Member(Announcement("a", "1", "http://a", 7, NOW - NS, "e:3"), live=True)
    silent = Member(Announcement("b", "1", "http://b", 5, NOW - 9 * NS), live=False)
    document = told(ChainStatus(T), live, silent)
    assert document["watching"] == 7
    assert [(row["subscriber"], row["clients"], row["live"], row["age_s"]) for row in document["subscribers"]] == [
        ("a", 7, True, 1.0),
        ("b", 5, False, 9.0),
    ]


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([], 0.5, None), ([1.0], 0.95, 1.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), ([1.0, 2.0], 0.0, 1.0)],
)
def test_a_quantile_is_one_of_the_values(values: list[float], q: float, expected: float | None) -> None:
    """By rank, as everywhere in the instrument."""
    assert quantile(values, q) == expected
