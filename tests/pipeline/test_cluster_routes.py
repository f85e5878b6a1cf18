"""How clusters join, leave, and come back, and who is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from pipeline import cluster_routes, main_publisher
from pipeline.bus.base import Bus
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.main_publisher import ClusterRoutes
from pipeline.messages import ClusterRoute, Hop, Window, decode_window, encode
from pipeline.settings import Settings

NAMES = topics(Settings())
AGGREGATES = NAMES.aggregates.name


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        threading.Event().wait(0.002)


def emit(bus: Bus, *numbers: int) -> None:
    """Play Spark's job."""
    with closing(bus.writer()) as writer:
        for number in numbers:
            writer.send(AGGREGATES, encode(Window("e", number, 1, 2, {}, 0, [])))


def windows(bus: Bus, cluster: str) -> list[int]:
    """What a cluster was given."""
    name = NAMES.cluster(cluster).name
    bus.ensure(NAMES.cluster(cluster))
    return [decode_window(record.value).window for record in bus.tail(name, 999)]


def prepared() -> MemoryBus:
    """A bus with the topics a main publisher needs."""
    bus = MemoryBus()
    bus.ensure(NAMES.aggregates, NAMES.clusters)
    return bus


@contextmanager
def publishing(bus: MemoryBus) -> Iterator[None]:
    """A main publisher at work, which ends cleanly."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        with closing(ClusterRoutes(lambda: bus, NAMES, failures.append)) as routes:
            main_publisher.follow(bus, NAMES, routes, stop)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert failures == []
    assert not [left for left in threading.enumerate() if left.name.startswith("forward-")]


def said(bus: Bus) -> dict[str, ClusterRoute | None]:
    """What the topic says."""
    return cluster_routes.read(bus.tail(NAMES.clusters.name, 999))


def test_a_cluster_joins_once() -> None:
    """With what is yet to come; joining again, as after a restart, changes nothing."""
    bus = prepared()
    emit(bus, 0, 1)
    cluster_routes.join(bus, NAMES, ["1"])
    emit(bus, 2)
    cluster_routes.join(bus, NAMES, ["1", "2"])
    assert said(bus) == {"1": ClusterRoute("1", 2), "2": ClusterRoute("2", 3)}
    assert len(bus.tail(NAMES.clusters.name, 9)) == 2


def test_a_cluster_that_comes_back_joins_anew() -> None:
    """Its first time is over."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1"])
    cluster_routes.leave(bus, NAMES, "1")
    assert said(bus) == {"1": None}
    emit(bus, 0, 1, 2)
    cluster_routes.join(bus, NAMES, ["1"])
    assert said(bus) == {"1": ClusterRoute("1", 3)}


def test_records_that_are_no_routes_are_passed_over() -> None:
    """A foreign writer neither adds nor removes a cluster."""
    bus = prepared()
    writer = bus.writer()
    writer.send(NAMES.clusters.name, b"nonsense", b"1")
    writer.send(NAMES.clusters.name, b"{}", b"1")
    writer.send(NAMES.clusters.name, encode(ClusterRoute("1", 0)))
    assert said(bus) == {}
    cluster_routes.join(bus, NAMES, ["1"])
    assert said(bus) == {"1": ClusterRoute("1", 0)}


def test_every_cluster_gets_the_windows_from_when_it_joined() -> None:
    """Also those that were emitted before the main publisher heard of it."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1"])
    emit(bus, 0)
    with publishing(bus):
        until(lambda: windows(bus, "1") == [0])
        cluster_routes.join(bus, NAMES, ["2"])
        emit(bus, 1)
        until(lambda: windows(bus, "2") == [1])
        until(lambda: windows(bus, "1") == [0, 1])
    (window,) = [decode_window(record.value) for record in bus.tail(NAMES.cluster("2").name, 9)]
    assert [type(hop) for hop in window.hops] == [Hop]
    assert window.hops[0].stage == "main-publisher"


def test_a_cluster_that_left_gets_nothing_and_the_others_go_on() -> None:
    """When it comes back it begins with what is new, and what it missed is not made up for."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1", "2"])
    with publishing(bus):
        emit(bus, 0)
        until(lambda: windows(bus, "2") == [0])
        cluster_routes.leave(bus, NAMES, "2")
        until(lambda: not any(thread.name == "forward-2" for thread in threading.enumerate()))
        emit(bus, 1)
        until(lambda: windows(bus, "1") == [0, 1])
        cluster_routes.join(bus, NAMES, ["2"])
        emit(bus, 2)
        until(lambda: windows(bus, "2") == [0, 2])
        until(lambda: windows(bus, "1") == [0, 1, 2])


def test_a_restarted_main_publisher_goes_on_where_each_cluster_is() -> None:
    """It knows who has joined and left, and gives each what came while it was away, once."""
    bus = prepared()
    cluster_routes.join(bus, NAMES, ["1", "2", "3"])
    with publishing(bus):
        emit(bus, 0)
        until(lambda: all(windows(bus, cluster) == [0] for cluster in "123"))
    emit(bus, 1)
    cluster_routes.leave(bus, NAMES, "2")
    cluster_routes.leave(bus, NAMES, "3")
    cluster_routes.join(bus, NAMES, ["3", "4"])
    emit(bus, 2)
    with publishing(bus):
        until(lambda: windows(bus, "1") == [0, 1, 2])
        until(lambda: windows(bus, "3") == [0, 2])
        until(lambda: windows(bus, "4") == [2])
    assert windows(bus, "2") == [0]


def test_a_forwarder_that_gives_up_is_told_of() -> None:
    """The stage ends with its error, and is started again."""
    failures: list[BaseException] = []

    def connect() -> Bus:
        raise ConnectionError("away")

    with closing(ClusterRoutes(connect, NAMES, failures.append)) as routes:
        bus = prepared()
        cluster_routes.join(bus, NAMES, ["1"])
        routes.hear(bus.tail(NAMES.clusters.name, 9))
        until(lambda: len(failures) == 1)
    with pytest.raises(ConnectionError, match="away"):
        raise failures[0]
