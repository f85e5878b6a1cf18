"""The metrics of windows, as a publisher counts them."""

from __future__ import annotations

import pytest

from pipeline.errors import KafkaUnreachableError
from pipeline.messages import encode
from pipeline.metrics.exposition import bare_registry, expose
from tests.harness.stages.metrics import at, publisher, scraped, window


def test_publisher_counts_forwarded_and_dropped_records() -> None:
    """Each window counts once, for any number of outputs; duplicates and unreadable records count by reason."""
    bus, forwarder = publisher()
    writer = bus.writer()
    for record in (window(0), window(1), window(1)):
        writer.send("in", encode(record))
    writer.send("in", b"nonsense")
    forwarder.step(bus.tail("in", 9))
    seen = scraped(expose(bare_registry(forwarder.meters), "")[0])
    stage = "main-publisher"
    assert at(seen, "emostream_windows_forwarded_total", stage=stage) == 2
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="duplicate") == 1
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="malformed") == 1
    assert at(seen, "emostream_window_latency_seconds_count", stage=stage) == 2


def test_window_of_a_failed_flush_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters show only windows that Kafka has acknowledged."""
    bus, forwarder = publisher()
    bus.writer().send("in", encode(window(0)))
    forwarder.step([])

    def refuse() -> None:
        raise KafkaUnreachableError("away")

    monkeypatch.setattr(forwarder._writer, "flush", refuse)
    with pytest.raises(KafkaUnreachableError):
        forwarder.step(bus.tail("in", 9))
    seen = scraped(expose(bare_registry(forwarder.meters), "")[0])
    assert at(seen, "emostream_windows_forwarded_total", stage="main-publisher") == 0
