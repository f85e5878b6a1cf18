"""Which processes make a chain, and in what order they stop."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings import Settings
from pipeline.supervisor.plan import Stage, scaled, stages


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


def names(plan: list[Stage]) -> list[str]:
    """The stages' names."""
    return [stage.name for stage in plan]


def test_a_cluster_grows_and_shrinks_at_its_end() -> None:
    """Subscribers are added after those that are there, and taken away from the last one on."""
    plan = stages(Settings(clusters=2, subscribers=2), 9092, "data")
    start, stop = scaled(plan, "1", 4)
    assert (names(start), stop) == (["subscriber-1-3", "subscriber-1-4"], [])
    start, stop = scaled([*plan, *start], "1", 1)
    assert (start, names(stop)) == ([], ["subscriber-1-4", "subscriber-1-3", "subscriber-1-2"])
    assert scaled(plan, "1", 2) == ([], [])


def test_a_cluster_comes_and_goes_with_its_publisher() -> None:
    """The publisher is the first to come and the last to go; what is not there is not stopped."""
    plan = stages(Settings(clusters=2, subscribers=2), 9092, "data")
    assert names(scaled(plan, "north", 1)[0]) == ["cluster-publisher-north", "subscriber-north-1"]
    assert names(scaled(plan, "2", 0)[1]) == ["subscriber-2-2", "subscriber-2-1", "cluster-publisher-2"]
    assert scaled(plan, "north", 0) == ([], [])


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", "1-1"]), st.integers(0, 5)), max_size=8))
def test_whatever_was_asked_before_the_last_word_on_each_cluster_counts(asked: list[tuple[str, int]]) -> None:
    """After any sequence each cluster is what a chain started with that many would have, and no other stage changed."""
    plan = list(stages(Settings(clusters=2, subscribers=2), 9092, "data"))
    others = {stage.name for stage in plan if stage.arguments[:1] != ("--cluster",)}
    wanted = {"1": 2, "2": 2}
    for cluster, subscribers in asked:
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
