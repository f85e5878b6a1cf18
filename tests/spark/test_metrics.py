"""The metrics of the Spark job."""

from __future__ import annotations

import json

import pytest

from pipeline import turns
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec
from pipeline.errors import KafkaUnreachableError
from pipeline.metrics.exposition import bare_registry, expose
from pipeline.streaming_progress import StreamingProgress, decode_progress
from spark.metrics import QUERY_S, BatchMeters
from tests.harness.stages.metrics import NAMES, at, scraped, window


def report(rows: int, took_ms: int, end: dict[str, int] | None) -> StreamingProgress:
    """Return a progress report as Spark writes it, including fields that are not used."""
    offsets = None if end is None else {NAMES.events.name: end}
    text = json.dumps(
        {
            "batchId": 3,
            "timestamp": "2027-01-15T08:00:00.000Z",
            "numInputRows": rows,
            "inputRowsPerSecond": 1.5,
            "durationMs": {"addBatch": took_ms - 10, "triggerExecution": took_ms},
            "sources": [{"description": "KafkaV2", "startOffset": None, "endOffset": offsets, "metrics": {}}],
            "sink": {"description": "ForeachBatchSink", "numOutputRows": -1},
        }
    )
    return decode_progress(text.encode())


def test_batch_duration_rows_trigger_and_lag_are_exposed() -> None:
    """The lag is the number of records after the offsets that were read, over all partitions."""
    bus = MemoryBus()
    bus.ensure(TopicSpec(NAMES.events.name, 2))
    writer = bus.writer()
    for number in range(9):
        writer.send(NAMES.events.name, b"x", key=None if number < 6 else b"k")
    ends = bus.ends(NAMES.events.name)
    meters = BatchMeters(NAMES.events.name, 6.0)
    meters.progress(report(5, 340, {"0": max(0, ends[0] - 3), "1": ends[1]}), bus)
    meters.progress(report(0, 20, {"0": ends[0] - 2, "1": ends[1]}), bus)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_spark_batch_seconds_count") == 1
    assert at(seen, "emostream_spark_batch_seconds_sum") == pytest.approx(0.34)
    assert at(seen, "emostream_spark_rows_total") == 5
    assert at(seen, "emostream_spark_trigger_seconds") == 6
    assert at(seen, "emostream_spark_lag_records") == 2


def test_lag_is_nan_while_kafka_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is still counted."""
    bus = MemoryBus()
    bus.ensure(TopicSpec(NAMES.events.name, 1))

    def away(topic: str) -> dict[int, int]:
        raise KafkaUnreachableError("away")

    monkeypatch.setattr(bus, "ends", away)
    meters = BatchMeters(NAMES.events.name, 6.0)
    meters.progress(report(1, 100, {"0": 1}), bus)
    meters.progress(report(0, 100, None), bus)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert str(at(seen, "emostream_spark_lag_records")) == "nan"
    assert at(seen, "emostream_spark_rows_total") == 1


def test_driver_or_query_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's loop at once, as when the JVM is stopped; the query only after the time of the longest batch."""
    now_s = 1_000.0
    monkeypatch.setattr(turns.time, "monotonic", lambda: now_s)
    meters = BatchMeters(NAMES.events.name, 6.0)
    meters.query.mark()
    now_s += QUERY_S + 12
    meters.loop.mark()
    assert meters.health()["stalled_s"] == 0.0
    now_s += 30
    assert meters.health()["stalled_s"] == 30.0
    meters.loop.mark()
    assert meters.health()["stalled_s"] == 30.0
    meters.query.mark()
    assert meters.health()["stalled_s"] == 0.0


def test_windows_reactions_and_malformed_records_are_counted() -> None:
    """Also the latency from the trigger, and the health before and after the start."""
    meters = BatchMeters(NAMES.events.name, 6.0)
    assert meters.health()["status"] == "starting"
    meters.emitted(window(0, malformed=3, trigger_ns=10**18, emitted_ns=10**18 + 250_000_000))
    meters.epoch = "e"
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_spark_reactions_total") == 15
    assert at(seen, "emostream_spark_malformed_total") == 3
    assert at(seen, "emostream_windows_forwarded_total", stage="spark") == 1
    assert at(seen, "emostream_window_latency_seconds_sum", stage="spark") == pytest.approx(0.25)
    assert at(seen, "emostream_window_last_timestamp_seconds", stage="spark") == pytest.approx(1e9 + 0.25)
    assert meters.health() == {"status": "ok", "stage": "spark", "epoch": "e", "stalled_s": 0.0}
