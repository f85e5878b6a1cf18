"""Readiness: a probe passes through the chain; what each stage lacks that is not ready; stages that come back."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec, topics
from pipeline.cluster_routes import read
from pipeline.errors import KafkaUnreachableError
from pipeline.messages import Announcement, ClusterRoute, Window, encode
from pipeline.settings import Settings
from pipeline.supervisor import readiness
from pipeline.supervisor.plan import Stage, stages
from pipeline.supervisor.readiness import Readiness
from tests.harness.waiting import until

SETTINGS = Settings(clusters=2, subscribers=1)
PLAN = stages(SETTINGS, 9092, "")
NAMES = topics(SETTINGS)
CARRIERS = ("spark", "main-publisher", "cluster-publisher-1", "cluster-publisher-2")
DEADLINE_S = 60.0
LATE_S = 1.5


def window(epoch: str, number: int) -> bytes:
    """Return a window without reactions."""
    return encode(Window(epoch, number, 1, 2, {"emoji-events-0": (0, 0)}, 0, [], malformed=1))


class Chain:
    """A chain in memory: it answers the probe with a window and announces its subscribers, cluster → last event."""

    def __init__(self, bus: MemoryBus, announced: dict[str, str | None], carriers: tuple[str, ...] = CARRIERS) -> None:
        self._bus = bus
        self.announced = announced
        self._carriers = carriers
        self.probes: list[bytes | None] = []
        self.stop = threading.Event()
        outputs = [spec for cluster in "12" for spec in (NAMES.cluster(cluster), NAMES.feed(cluster))]
        bus.ensure(NAMES.events, NAMES.aggregates, NAMES.subscribers, *outputs)
        # What a chain left that ran before.
        for spec in (NAMES.aggregates, *outputs):
            bus.writer().send(spec.name, window("e", 4))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Chain:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        writer = self._bus.writer()
        with closing(self._bus.reader(NAMES.events.name)) as events:
            while not self.stop.is_set():
                for record in events.poll(0.01):
                    self.probes.append(record.value)
                    for topic in self._outputs():
                        writer.send(topic, window("e", 5))
                for cluster, last in self.announced.items():
                    announcement = Announcement("1", cluster, f"http://{cluster}", 0, time.time_ns(), last)
                    writer.send(NAMES.subscribers.name, encode(announcement), key=cluster.encode())

    def _outputs(self) -> list[str]:
        """Return the topics to which the stages pass on a window; each needs the one before it."""
        outputs: list[str] = []
        for carrier in self._carriers:
            cluster = carrier[-1]
            outputs += {
                "spark": [NAMES.aggregates.name],
                "main-publisher": [NAMES.cluster("1").name, NAMES.cluster("2").name],
            }.get(carrier, [NAMES.feed(cluster).name])
        return outputs


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the URLs of the stages that answer /healthz; a test may change them."""
    urls = {"http://ingest"}
    monkeypatch.setattr(readiness, "_answers", lambda url: url.removesuffix("/healthz") in urls)
    monkeypatch.setattr(readiness, "BACK_AFTER_S", 0.0)
    return urls


def of(bus: MemoryBus, plan: tuple[Stage, ...] = tuple(PLAN), **urls: str) -> Readiness:
    """Return the readiness of a chain on `bus`."""
    return Readiness(SETTINGS, plan, urls, bus, bus, time.monotonic())


def test_ready_when_every_stage_has_passed_on_the_probes_window() -> None:
    """One null record is sent; the result is every subscriber's announcement, sorted by cluster and name."""
    bus = MemoryBus()
    with Chain(bus, {"2": "e:6", "1": "e:5"}) as chain:
        ready = of(bus).await_first_window(threading.Event(), DEADLINE_S)
    assert ready is not None
    assert [announcement.url for announcement in ready] == ["http://1", "http://2"]
    assert chain.probes == [None]
    # The routes exist before the probe, so that a cluster whose publisher starts late gets its window.
    assert read(bus.tail(NAMES.clusters.name, 9)) == {"1": ClusterRoute("1", 1), "2": ClusterRoute("2", 1)}


NO_WINDOW = "has not passed on a first window"


@pytest.mark.parametrize(
    ("announced", "carriers", "lacking"),
    [
        ({"1": "e:5", "2": "e:4"}, CARRIERS, {"subscriber-2-1": NO_WINDOW}),
        ({"1": "e:5"}, CARRIERS, {"subscriber-2-1": "has not announced itself"}),
        ({"1": "e:5", "2": None}, CARRIERS, {"subscriber-2-1": NO_WINDOW}),
        ({"1": "d:9", "2": "e:5"}, CARRIERS, {"subscriber-1-1": NO_WINDOW}),
        ({"1": "e:5", "2": "e:4"}, CARRIERS[:3], dict.fromkeys(("cluster-publisher-2", "subscriber-2-1"), NO_WINDOW)),
        ({"1": "e:5", "2": "e:5"}, ("spark", *CARRIERS[2:]), {"main-publisher": NO_WINDOW}),
        ({"1": "e:4", "2": "e:4"}, (), dict.fromkeys((*CARRIERS, "subscriber-1-1", "subscriber-2-1"), NO_WINDOW)),
    ],
    ids=["behind", "silent", "no window", "another epoch", "cluster publisher", "main publisher", "spark"],
)
def test_stage_that_is_not_ready_in_time_lacks_something(
    announced: dict[str, str | None], carriers: tuple[str, ...], lacking: dict[str, str]
) -> None:
    """A window that was there before the start is not the first one of this chain."""
    bus = MemoryBus()
    found = of(bus)
    with Chain(bus, announced, carriers):
        assert found.await_first_window(threading.Event(), LATE_S) is None
    assert {name: lack.what for name, lack in found.lacking().items()} == lacking


def test_stage_lacks_the_window_because_of_the_one_before_it() -> None:
    """Kafka, Spark, the main publisher, the cluster's publisher, its subscribers."""
    after = {name: lack.after for name, lack in of(MemoryBus()).lacking().items()}
    assert [after[name] for name in ("spark", "main-publisher", "cluster-publisher-2")] == [
        "kafka", "spark", "main-publisher",
    ]  # fmt: skip
    assert after["ingest"] == "kafka"


def test_unhealthy_stage_is_missing_with_its_address(healthy: set[str]) -> None:
    """Although the window has passed through."""
    bus = MemoryBus()
    found = of(bus, ingest="http://ingest")
    healthy.remove("http://ingest")
    with Chain(bus, {"1": "e:5", "2": "e:5"}):
        assert found.await_first_window(threading.Event(), LATE_S) is None
    assert {name: lack.what for name, lack in found.lacking().items()} == {
        "ingest": "does not answer at http://ingest/healthz"
    }


def test_stop_ends_the_wait() -> None:
    """A stop during the start returns at once, not at the timeout."""
    stop = threading.Event()
    stop.set()
    began_s = time.monotonic()
    assert of(MemoryBus()).await_first_window(stop, 10 * DEADLINE_S) is None
    assert time.monotonic() - began_s < DEADLINE_S


class LateBus(MemoryBus):
    """A Kafka that answers only the third call."""

    calls = 0

    def ensure(self, *specs: TopicSpec) -> None:
        """Create the topics, or fail."""
        self.calls += 1
        if self.calls < 3:
            raise KafkaUnreachableError("no Kafka answers at bootstrap_servers='kafka:1'")
        super().ensure(*specs)


def test_the_chains_own_kafka_may_start_late_and_another_may_not() -> None:
    """Its own is started again if it dies; without an existing one the start is pointless."""
    bus = LateBus()
    with pytest.raises(KafkaUnreachableError, match="kafka:1"):
        of(bus, tuple(PLAN[1:])).await_first_window(threading.Event(), DEADLINE_S)
    found = of(bus)
    assert found.await_first_window(threading.Event(), 0.5) is None
    assert "kafka" not in found.lacking()
    never = of(LateBus())
    assert never.await_first_window(threading.Event(), 0) is None
    assert never.lacking()["kafka"].what.startswith("does not answer at ")


def test_stage_that_died_is_back_when_it_answers_again(healthy: set[str]) -> None:
    """A subscriber needs a new announcement, as its address may be another; neither needs a new window."""
    bus = MemoryBus()
    found = of(bus, ingest="http://ingest")
    stop = threading.Event()
    watching = threading.Thread(target=found.watch, args=(stop,), daemon=True)
    by_name = {stage.name: stage for stage in PLAN}
    with Chain(bus, {"1": "e:5", "2": "e:5"}) as chain:
        assert found.await_first_window(stop, DEADLINE_S) is not None
        healthy.remove("http://ingest")
        chain.announced = {"1": "e:5"}
        found.died(by_name["ingest"])
        found.died(by_name["subscriber-2-1"])
        found.died(by_name["spark"])
        watching.start()
        until(lambda: set(found.lacking()) == {"ingest", "subscriber-2-1"}, "spark is back")
        healthy.add("http://ingest")
        chain.announced = {"1": "e:5", "2": None}
        until(lambda: not found.lacking(), "both are back")
        # One that scaling adds is ready when it has announced itself.
        added = replace(
            by_name["subscriber-2-1"], name="subscriber-3-1", arguments=("--cluster", "3", "--subscriber", "1")
        )
        found.add(added, {})
        until(lambda: set(found.lacking()) == {"subscriber-3-1"}, "the new one is missing")
        found.remove("subscriber-3-1")
        assert found.lacking() == {}
    stop.set()
