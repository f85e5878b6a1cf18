"""The metrics of ingest."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.ingest.buffer import Buffer
from pipeline.ingest.metrics import REASONS, Meters
from pipeline.metrics.exposition import bare_registry, expose
from tests.harness.stages.metrics import GOOD, Ingest, NoSink, at, scraped


def test_accepted_and_waiting_reactions_are_counted() -> None:
    """Reactions, not requests; they wait until their flush is acknowledged, and the flush has its size."""
    stage = Ingest(buffer_max=10)
    assert stage.http.post("/reactions", json=[GOOD] * 3).status_code == 202
    assert stage.http.post("/reactions", json=GOOD).status_code == 202
    seen = stage.scrape()
    assert at(seen, "emostream_ingest_reactions_accepted_total") == 4
    assert at(seen, "emostream_ingest_buffer_reactions") == 4
    assert at(seen, "emostream_ingest_buffer_limit_reactions") == 10
    assert at(seen, "emostream_ingest_flush_seconds_count") == 0
    stage.flusher._flush(NoSink())
    seen = stage.scrape()
    assert at(seen, "emostream_ingest_reactions_accepted_total") == 4
    assert at(seen, "emostream_ingest_buffer_reactions") == 0
    assert at(seen, "emostream_ingest_flush_seconds_count") == 1
    assert at(seen, "emostream_ingest_flush_reactions_sum") == 4


@pytest.mark.parametrize(
    ("reason", "request_"),
    [
        ("not_application_json", {"data": b"{}", "content_type": "text/plain"}),
        ("not_json", {"data": b"{", "content_type": "application/json"}),
        ("not_a_reaction", {"json": {}}),
        ("body_too_large", {"json": [GOOD] * 20}),
        ("array_too_long", {"json": [GOOD] * 6}),
        ("too_many_reactions_of_one_user", {"json": [GOOD] * 5}),
        ("buffer_full", {"json": [{**GOOD, "user_id": str(n)} for n in range(5)]}),
    ],
)
def test_refusals_are_counted_by_reason(reason: str, request_: dict[str, Any]) -> None:
    """Every reason starts at 0; a refused request adds nothing to the accepted reactions."""
    stage = Ingest(body_max_bytes=900, array_max=5, rate_per_user_s=4, buffer_max=4)
    name = "emostream_ingest_requests_refused_total"
    before = stage.scrape()
    assert {labels[0][1] for sample, labels in before if sample == name} == set(REASONS)
    assert stage.http.post("/reactions", **request_).status_code >= 400
    after = stage.scrape()
    assert {key: after[key] - before[key] for key in after if key[0] == name and after[key] != before[key]} == {
        (name, (("reason", reason),)): 1
    }
    assert at(after, "emostream_ingest_reactions_accepted_total") == 0


def test_kafka_silence_is_exposed_and_its_refusals_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of the waiting flush is exposed."""
    stage = Ingest(kafka_out_s=10)
    monkeypatch.setattr(stage.flusher.meters, "_silent_s", lambda: 11.5)
    monkeypatch.setattr(stage.flusher, "silent_s", lambda: 11.5)
    assert stage.http.post("/reactions", json=GOOD).status_code == 503
    seen = stage.scrape()
    assert at(seen, "emostream_ingest_kafka_silence_seconds") == 11.5
    assert at(seen, "emostream_ingest_requests_refused_total", reason="kafka_is_out_of_reach") == 1


def test_losses_and_errors_of_the_sink_are_counted_once() -> None:
    """For any number of refreshes."""
    buffer = Buffer(10, 1)
    meters = Meters(buffer, lambda: 0.0)
    sink = NoSink()
    sink.lost, sink.errors = 2, 3
    for _ in range(2):
        meters.refresh(sink)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_ingest_reactions_lost_total") == 2
    assert at(seen, "emostream_ingest_kafka_errors_total") == 3
