"""Every stage's exposition: conventions, OpenMetrics and process metrics."""

from __future__ import annotations

import re

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from pipeline.metrics.exposition import PATH
from tests.harness.stages.metrics import Ingest

# The allowed labels: none identifies a client, a user or an emoji.
LABELS = {"stage", "cluster", "subscriber", "reason", "status", "transport", "state", "le"}
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def families(expositions: dict[str, bytes]) -> list[tuple[str, Metric]]:
    """Return every family of every stage."""
    return [(stage, family) for stage, text in expositions.items() for family in parse(text.decode())]


def test_every_stage_follows_the_naming_conventions(expositions: dict[str, bytes]) -> None:
    """A known prefix, a help text, counters ending in _total, base units, and labels with few values."""
    for stage, family in families(expositions):
        assert family.name.startswith(("emostream_", "process_")), family.name
        assert family.documentation.endswith("."), family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not re.search(r"_(ms|ns|kb|mb|minutes|percent)(_|$)", family.name)
        for sample in family.samples:
            assert (family.type == "counter") is sample.name.endswith("_total"), sample.name
            assert set(sample.labels) <= LABELS, (stage, sample)
            assert not sample.name.endswith("_created")


def test_scrape_can_be_open_metrics() -> None:
    """A scraper that accepts OpenMetrics, as Prometheus does, gets it; it parses by its stricter rules."""
    answer = Ingest().http.get(PATH, headers={"Accept": OPEN_METRICS})
    assert answer.content_type.startswith("application/openmetrics-text")
    assert {family.name for family in open_metrics(answer.text)} >= {"emostream_ingest_reactions_accepted"}


def test_every_stage_but_ingest_exposes_process_metrics(expositions: dict[str, bytes]) -> None:
    """CPU, memory and open files. An answer of ingest sums several processes."""
    for stage, text in expositions.items():
        assert (b"process_cpu_seconds_total" in text) is (stage != "ingest"), stage
