"""Clusters join, leave and join again, and the main publisher follows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import cast

import pytest

from pipeline import cluster_routes, dead_letters, main_publisher
from pipeline.bus.base import Bus
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.forwarding import TAIL
from pipeline.main_publisher import ClusterForwarders
from pipeline.messages import ClusterRoute, Hop, Window, decode_window, encode
from pipeline.settings import Settings
from tests.harness.waiting import DEADLINE_S, until

NAMES = topics(Settings())
AGGREGATES = NAMES.aggregates.name


def emit(bus: Bus, *numbers: int) -> None:
    """Emit windows as the Spark job does."""
    with closing(bus.writer()) as writer:
        for number in numbers:
            covered = {"emoji-events-0": (number, number)}
            window = Window("e", number, 1, 2, covered, 0, [], appended_ms={"emoji-events-0": 3})
            writer.send(AGGREGATES, encode(window))


def windows(bus: Bus, cluster: str) -> list[int]:
    """Return the windows that a cluster got."""
    name = NAMES.cluster(cluster).name
    bus.ensure(NAMES.cluster(cluster))
    return [decode_window(record.value).window for record in bus.tail(name, 999)]


def prepared() -> MemoryBus:
    """Return a bus with the topics that a main publisher needs."""
    bus = MemoryBus()
    bus.ensure(NAMES.aggregates, NAMES.clusters)
    return bus


@contextmanager
def publishing(bus: MemoryBus) -> Iterator[None]:
    """Run a main publisher, and check that it ends, and no forwarder is failing."""
    stop = threading.Event()
    failing: list[object] = []

    def run() -> None:
        with closing(ClusterForwarders(lambda: bus, NAMES)) as forwarders:
            main_publisher.follow(bus, NAMES, forwarders, stop)
            failing.append(forwarders.health()["failing"])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert failing == [{}]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("forward-")]


def routes(bus: Bus) -> dict[str, ClusterRoute | None]:
    """Return the routes on the topic `clusters`."""
    return cluster_routes.read(bus.tail(NAMES.clusters.name, 999))


def test_joining_again_changes_nothing() -> None:
    """A cluster gets the windows after it joined first, also after a restart."""
    bus = prepared()
    emit(bus, 0, 1)
    cluster_routes.join(bus, NAMES, ["1"])
    emit(bus, 2)
    cluster_routes.join(bus, NAMES, ["1", "2"])
    assert routes(bus) == {"1": ClusterRoute("1", 2), "2": ClusterRoute("2", 3)}
    assert len(bus.tail(NAMES.clusters.name, 9)) == 2


def test_cluster_that_left_joins_with_a_new_route() -> None:
    """The new route starts at the current end of the topic."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1"])
    cluster_routes.leave(bus, NAMES, "1")
    assert routes(bus) == {"1": None}
    emit(bus, 0, 1, 2)
    cluster_routes.join(bus, NAMES, ["1"])
    assert routes(bus) == {"1": ClusterRoute("1", 3)}


def test_unreadable_routes_are_skipped() -> None:
    """Records of a foreign writer neither add nor remove a cluster."""
    bus = prepared()
    writer = bus.writer()
    writer.send(NAMES.clusters.name, b"nonsense", b"1")
    writer.send(NAMES.clusters.name, b"{}", b"1")
    writer.send(NAMES.clusters.name, encode(ClusterRoute("1", 0)))
    assert routes(bus) == {}
    cluster_routes.join(bus, NAMES, ["1"])
    assert routes(bus) == {"1": ClusterRoute("1", 0)}


def test_cluster_gets_every_window_after_it_joined() -> None:
    """Also those emitted before the main publisher read the route."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1"])
    emit(bus, 0)
    with publishing(bus):
        until(lambda: windows(bus, "1") == [0], "cluster 1 has the windows [0]")
        cluster_routes.join(bus, NAMES, ["2"])
        emit(bus, 1)
        until(lambda: windows(bus, "2") == [1], "cluster 2 has the windows [1]")
        until(lambda: windows(bus, "1") == [0, 1], "cluster 1 has the windows [0, 1]")
    (window,) = [decode_window(record.value) for record in bus.tail(NAMES.cluster("2").name, 9)]
    assert [type(hop) for hop in window.hops] == [Hop]
    assert window.hops[0].stage == "main-publisher"


def test_cluster_that_left_gets_no_windows_and_others_do() -> None:
    """When it joins again it gets new windows only."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1", "2"])
    with publishing(bus):
        emit(bus, 0)
        until(lambda: windows(bus, "2") == [0], "cluster 2 has the windows [0]")
        cluster_routes.leave(bus, NAMES, "2")
        until(
            lambda: not any(thread.name == "forward-2" for thread in threading.enumerate()),
            "the forwarder of cluster 2 has ended",
        )
        emit(bus, 1)
        until(lambda: windows(bus, "1") == [0, 1], "cluster 1 has the windows [0, 1]")
        cluster_routes.join(bus, NAMES, ["2"])
        emit(bus, 2)
        until(lambda: windows(bus, "2") == [0, 2], "cluster 2 has the windows [0, 2]")
        until(lambda: windows(bus, "1") == [0, 1, 2], "cluster 1 has the windows [0, 1, 2]")


def test_restarted_main_publisher_continues_per_cluster() -> None:
    """It reads the current routes, and sends each cluster the windows that it missed, once."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1", "2", "3"])
    with publishing(bus):
        emit(bus, 0)
        until(lambda: all(windows(bus, cluster) == [0] for cluster in "123"), "all three clusters have window 0")
    emit(bus, 1)
    cluster_routes.leave(bus, NAMES, "2")
    cluster_routes.leave(bus, NAMES, "3")
    cluster_routes.join(bus, NAMES, ["3", "4"])
    emit(bus, 2)
    with publishing(bus):
        until(lambda: windows(bus, "1") == [0, 1, 2], "cluster 1 has the windows [0, 1, 2]")
        until(lambda: windows(bus, "3") == [0, 2], "cluster 3 has the windows [0, 2]")
        until(lambda: windows(bus, "4") == [2], "cluster 4 has the windows [2]")
    assert windows(bus, "2") == [0]


def test_failed_forwarder_is_reported_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cluster stands in the answer of /healthz until it forwards; the forwarder of another one goes on."""
    monkeypatch.setattr(main_publisher, "AGAIN_S", 0.01)
    bus, away = prepared(), threading.Event()
    away.set()

    def connect() -> Bus:
        if away.is_set() and threading.current_thread().name == "forward-1":
            raise ConnectionError("away")
        return bus

    with closing(ClusterForwarders(connect, NAMES)) as forwarders:
        cluster_routes.join(bus, NAMES, ["1", "2"])
        emit(bus, 0)
        forwarders.apply(bus.tail(NAMES.clusters.name, 9))
        until(lambda: forwarders.health()["failing"] == {"1": "away"}, "the failure is reported")
        assert forwarders.health()["status"] == "cannot forward to 1"
        until(lambda: windows(bus, "2") == [0], "cluster 2 has window 0")
        away.clear()
        until(lambda: windows(bus, "1") == [0], "cluster 1 has window 0")
        assert (forwarders.health()["status"], forwarders.health()["failing"]) == ("ok", {})


def test_forwarder_of_one_cluster_that_hangs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage's health says so, while the topic of clusters is followed."""
    bus, held, go_on = prepared(), threading.Event(), threading.Event()

    def hang(window: Window) -> Window:
        held.set()
        go_on.wait(DEADLINE_S)
        return window

    monkeypatch.setattr(main_publisher, "for_clusters", hang)
    with closing(ClusterForwarders(lambda: bus, NAMES)) as forwarders:
        assert forwarders.health()["stalled_s"] == 0.0
        cluster_routes.join(bus, NAMES, ["1"])
        emit(bus, 0)
        forwarders.apply(bus.tail(NAMES.clusters.name, 9))
        try:
            assert held.wait(DEADLINE_S)
            until(lambda: cast(float, forwarders.health()["stalled_s"]) > 0.5, "the forwarder does not come round")
        finally:
            go_on.set()


@pytest.mark.parametrize(
    ("key", "route"),
    [
        (b"1", {"cluster": "2", "from_offset": 0}),
        (b"1-feed", {"cluster": "1-feed", "from_offset": 0}),
        (b"bad name!", {"cluster": "bad name!", "from_offset": 0}),
        (b"1", {"cluster": "1", "from_offset": -1}),
        (b"1", {"cluster": "1", "from_offset": 2**63}),
    ],
)
def test_foreign_route_is_skipped(key: bytes, route: dict[str, object]) -> None:
    """Another cluster's name, a name that no cluster may have, and an offset that no topic has; real ones stay."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1"])
    with closing(bus.writer()) as writer:
        writer.send(NAMES.clusters.name, encode(route), key)
    assert routes(bus) == {"1": ClusterRoute("1", 0)}


def test_route_behind_the_end_of_the_windows_is_replaced_at_the_next_start() -> None:
    """Whether another program wrote it, or the topic of the windows was made again after the cluster joined."""
    bus = prepared()
    emit(bus, 0, 1)
    with closing(bus.writer()) as writer:
        for cluster, offset in (("1", 2**62), ("2", 3), ("3", 2)):
            writer.send(NAMES.clusters.name, encode(ClusterRoute(cluster, offset)), cluster.encode())
    joined = cluster_routes.join(bus, NAMES, ["1", "2", "3"])
    assert joined == [ClusterRoute("1", 0), ClusterRoute("2", 0), ClusterRoute("3", 2)]
    assert routes(bus) == {"1": joined[0], "2": joined[1], "3": joined[2]}
    assert len(bus.tail(NAMES.clusters.name, 9)) == 5


def test_route_behind_the_end_of_the_windows_loses_and_repeats_none() -> None:
    """The main publisher continues where it was, whichever offset another program names."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1"])
    with publishing(bus):
        emit(bus, *range(TAIL + 20))
        until(lambda: len(windows(bus, "1")) == TAIL + 20, "cluster 1 has the windows")
    emit(bus, TAIL + 20)
    with closing(bus.writer()) as writer:
        writer.send(NAMES.clusters.name, encode(ClusterRoute("1", 2**62)), b"1")
    with publishing(bus):
        until(lambda: windows(bus, "1")[-1] == TAIL + 20, "cluster 1 has the last window")
        emit(bus, TAIL + 21)
        until(lambda: windows(bus, "1")[-1] == TAIL + 21, "cluster 1 has the next window")
    assert windows(bus, "1") == list(range(TAIL + 22))


def test_foreign_window_reaches_no_cluster() -> None:
    """One that the job did not emit; it is kept as a dead letter, and the windows after it are forwarded."""
    bus = prepared()
    bus.ensure(NAMES.dead_letters)
    cluster_routes.join(bus, NAMES, ["1"])
    with publishing(bus):
        bus.writer().send(AGGREGATES, encode(Window("foreign", 0, 1, 2, {"emoji-events-0": (0, 0)}, 0, [])))
        emit(bus, 0)
        until(lambda: windows(bus, "1") == [0], "cluster 1 has window 0")
    (letter,) = dead_letters.kept(bus.tail(NAMES.dead_letters.name, 9))
    assert (letter.topic, letter.offset) == (AGGREGATES, 0)
    assert "not a window of the Spark job" in letter.reason
