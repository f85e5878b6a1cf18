"""Metrics of a whole chain: every stage found by the line that `up` prints, and the figures agree along the way."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from experiments.run.chain import Endpoints

pytestmark = pytest.mark.integration

REACTIONS = 50
DEADLINE_S = 30.0
STAGES = {
    *("ingest", "registry", "spark", "main-publisher"),
    *("cluster-publisher-1", "cluster-publisher-2", "subscriber-1-1", "subscriber-2-1"),
}


def scrape(url: str) -> dict[tuple[str, str], float]:
    """Return an exposition's samples by name and by stage, or else reason; summed where there is more to tell apart."""
    samples: dict[tuple[str, str], float] = {}
    with urllib.request.urlopen(url, timeout=10) as answer:
        for family in parse(answer.read().decode()):
            for sample in family.samples:
                label = sample.labels.get("stage", sample.labels.get("reason", ""))
                samples[sample.name, label] = samples.get((sample.name, label), 0.0) + sample.value
    return samples


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what the chain is about to do."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def addresses(ready_file: Path) -> dict[str, str]:
    """Where `up` says that the stages are asked."""
    found: dict[str, str] = json.loads(ready_file.read_text())["metrics"]
    return found


def test_every_stage_of_a_chain_can_be_asked(addresses: dict[str, str]) -> None:
    """The line of `up` names each, each answers with figures of its own, and beside them with its health."""
    assert set(addresses) == STAGES
    for stage, url in addresses.items():
        assert any(name.startswith("emostream_") for name, _ in scrape(url)), stage
        with urllib.request.urlopen(url.removesuffix("/metrics") + "/healthz", timeout=10) as health:
            assert json.load(health)["status"] == "ok", stage


def test_a_reaction_is_counted_by_every_stage_it_passes(chain_up: Endpoints, addresses: dict[str, str]) -> None:
    """What ingest accepted Spark counts, and every stage after it passes the windows on, none dropped as malformed."""
    accepted, counted = ("emostream_ingest_reactions_accepted_total", ""), ("emostream_spark_reactions_total", "")
    before = {stage: scrape(url) for stage, url in addresses.items()}
    moment = {"user_id": "counted", "emoji_type": "🎉", "timestamp": "2026-11-23T21:00:00Z"}
    body = json.dumps([moment] * REACTIONS).encode()
    request = urllib.request.Request(f"{chain_up.ingest}/reactions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202
    bad = urllib.request.Request(f"{chain_up.ingest}/reactions", b"{", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(bad, timeout=10)
    refused.value.close()

    def risen(stage: str, sample: tuple[str, str]) -> float:
        return scrape(addresses[stage])[sample] - before[stage].get(sample, 0.0)

    until(lambda: risen("ingest", accepted) == REACTIONS, "ingest has accepted all")
    until(lambda: risen("ingest", ("emostream_ingest_flush_reactions_sum", "")) == REACTIONS, "they are flushed")
    until(lambda: risen("spark", counted) == REACTIONS, "Spark has counted all")
    assert risen("ingest", ("emostream_ingest_requests_refused_total", "not_json")) == 1
    for stage in STAGES - {"ingest", "registry"}:
        until(
            lambda stage=stage: risen(stage, ("emostream_windows_forwarded_total", stage)) >= 1, f"{stage} passed it on"
        )
        assert risen(stage, ("emostream_windows_dropped_total", stage)) == 0
    until(lambda: risen("spark", ("emostream_spark_batch_seconds_count", "")) >= 1, "Spark has reported the batch")
    assert scrape(addresses["spark"])["emostream_spark_trigger_seconds", ""] == 2.0


def test_the_registry_leads_prometheus_to_the_subscribers(chain_up: Endpoints, addresses: dict[str, str]) -> None:
    """Its list is that of the live subscribers, at the addresses that `up` says."""
    with urllib.request.urlopen(f"{chain_up.registry}/targets", timeout=10) as answer:
        listed = json.load(answer)
    found = {
        entry["labels"]["stage"]: f"{entry['labels']['__scheme__']}://{entry['targets'][0]}"
        f"{entry['labels']['__metrics_path__']}"
        for entry in listed
    }
    assert found == {stage: url for stage, url in addresses.items() if stage.startswith("subscriber-")}
