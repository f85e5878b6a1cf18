"""Metrics of a whole chain: every stage found by the line that `up` prints, and the figures agree along the way."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from experiments.run.chain import Endpoints
from tests.harness.builders import reaction
from tests.harness.http import get_json, post_status
from tests.harness.waiting import until

pytestmark = pytest.mark.integration

REACTIONS = 50
STAGES = {
    *("ingest", "registry", "spark", "main-publisher"),
    *("cluster-publisher-1", "cluster-publisher-2", "subscriber-1-1", "subscriber-2-1"),
}


def scrape(url: str) -> dict[tuple[str, str], float]:
    """Return an exposition's samples by name and by stage, or else reason; summed where there is more to tell apart."""
    samples: dict[tuple[str, str], float] = {}
    with urllib.request.urlopen(url, timeout=240) as answer:
        for family in parse(answer.read().decode()):
            for sample in family.samples:
                label = sample.labels.get("stage", sample.labels.get("reason", ""))
                samples[sample.name, label] = samples.get((sample.name, label), 0.0) + sample.value
    return samples


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
        assert get_json(url.removesuffix("/metrics") + "/healthz")["status"] == "ok", stage


def test_a_reaction_is_counted_by_every_stage_it_passes(chain_up: Endpoints, addresses: dict[str, str]) -> None:
    """What ingest accepted Spark counts, and every stage after it passes the windows on, none dropped as malformed."""
    accepted, counted = ("emostream_ingest_reactions_accepted_total", ""), ("emostream_spark_reactions_total", "")
    before = {stage: scrape(url) for stage, url in addresses.items()}
    assert post_status(f"{chain_up.ingest}/reactions", [reaction("counted")] * REACTIONS) == 202
    assert post_status(f"{chain_up.ingest}/reactions", b"{") == 400

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
    assert scrape(addresses["spark"])["emostream_spark_trigger_seconds", ""] == 1.0


def test_the_registry_leads_prometheus_to_the_subscribers(chain_up: Endpoints, addresses: dict[str, str]) -> None:
    """Its list is that of the live subscribers, at the addresses that `up` says."""
    listed = get_json(f"{chain_up.registry}/targets")
    found = {
        entry["labels"]["stage"]: f"{entry['labels']['__scheme__']}://{entry['targets'][0]}"
        f"{entry['labels']['__metrics_path__']}"
        for entry in listed
    }
    assert found == {stage: url for stage, url in addresses.items() if stage.startswith("subscriber-")}
