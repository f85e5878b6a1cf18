"""The processes of a chain, and the order in which they stop."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings import Settings
from pipeline.supervisor.plan import Stage, scaled, stages


def test_every_cluster_has_a_publisher_and_subscribers() -> None:
    """The settings give the counts; names are unique."""
    plan = stages(Settings(clusters=3, subscribers=4), 9092, "data")
    modules = Counter(stage.module for stage in plan)
    assert modules["pipeline.cluster_publisher"] == 3
    assert modules["pipeline.subscriber"] == 12
    assert len({stage.name for stage in plan}) == len(plan) == 5 + 3 + 12


def test_ingest_stops_first_and_kafka_last() -> None:
    """Ingest flushes while Kafka still accepts records; all other stages stop in between."""
    plan = stages(Settings(), 9092, "data")
    ranks = {stage.name: stage.rank for stage in plan}
    others = {rank for name, rank in ranks.items() if name not in ("ingest", "kafka")}
    assert ranks["ingest"] < min(others) <= max(others) < ranks["kafka"]


def test_existing_kafka_is_not_started() -> None:
    """Without a broker port the stages include no Kafka."""
    assert "kafka" not in {stage.name for stage in stages(Settings(), None, "data")}


def names(plan: list[Stage]) -> list[str]:
    """Return the stages' names."""
    return [stage.name for stage in plan]


def test_cluster_grows_and_shrinks_at_its_end() -> None:
    """Subscribers are added after the existing ones, and removed from the last one on."""
    plan = stages(Settings(clusters=2, subscribers=2), 9092, "data")
    start, stop = scaled(plan, "1", 4)
    assert (names(start), stop) == (["subscriber-1-3", "subscriber-1-4"], [])
    start, stop = scaled([*plan, *start], "1", 1)
    assert (start, names(stop)) == ([], ["subscriber-1-4", "subscriber-1-3", "subscriber-1-2"])
    assert scaled(plan, "1", 2) == ([], [])


def test_publisher_starts_first_and_stops_last() -> None:
    """Removing an unknown cluster stops nothing."""
    plan = stages(Settings(clusters=2, subscribers=2), 9092, "data")
    assert names(scaled(plan, "north", 1)[0]) == ["cluster-publisher-north", "subscriber-north-1"]
    assert names(scaled(plan, "2", 0)[1]) == ["subscriber-2-2", "subscriber-2-1", "cluster-publisher-2"]
    assert scaled(plan, "north", 0) == ([], [])


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", "1-1"]), st.integers(0, 5)), max_size=8))
def test_last_request_per_cluster_decides(requests: list[tuple[str, int]]) -> None:
    """After any sequence of requests, each cluster has the stages of its last one, and no other stage has changed."""
    plan = list(stages(Settings(clusters=2, subscribers=2), 9092, "data"))
    others = {stage.name for stage in plan if stage.arguments[:1] != ("--cluster",)}
    wanted = {"1": 2, "2": 2}
    for cluster, subscribers in requests:
        start, stop = scaled(plan, cluster, subscribers)
        plan = [stage for stage in plan if stage not in stop] + start
        wanted[cluster] = subscribers
    expected = {
        name
        for cluster, subscribers in wanted.items()
        for name in (
            *([f"cluster-publisher-{cluster}"] if subscribers else []),
            *(f"subscriber-{cluster}-{n}" for n in range(1, subscribers + 1)),
        )
    }
    assert sorted(names(plan)) == sorted(others | expected)
