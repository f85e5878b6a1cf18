"""Which processes make a chain, and in what order they stop."""

from __future__ import annotations

from collections import Counter

from pipeline.settings import Settings
from pipeline.supervising.plan import stages


def test_every_cluster_has_its_publisher_and_subscribers() -> None:
    """The counts in the settings decide; names are unique."""
    plan = stages(Settings(clusters=3, subscribers=4), 9092, "data")
    modules = Counter(stage.module for stage in plan)
    assert modules["pipeline.cluster_publisher"] == 3
    assert modules["pipeline.subscriber"] == 12
    assert len({stage.name for stage in plan}) == len(plan) == 5 + 3 + 12


def test_ingest_stops_first_and_kafka_last() -> None:
    """Ingest flushes while Kafka still takes it; everyone else stops in between."""
    plan = stages(Settings(), 9092, "data")
    ranks = {stage.name: stage.rank for stage in plan}
    others = {rank for name, rank in ranks.items() if name not in ("ingest", "kafka")}
    assert ranks["ingest"] < min(others) <= max(others) < ranks["kafka"]


def test_a_kafka_that_is_there_is_not_started() -> None:
    """Without a port for it there is no broker among the stages."""
    assert "kafka" not in {stage.name for stage in stages(Settings(), None, "data")}
