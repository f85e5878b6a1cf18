"""Readiness: a probe passes through the chain, or the error names the stages that are not ready."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.cluster_routes import read
from pipeline.errors import EmoStreamError
from pipeline.messages import Announcement, ClusterRoute, Window, encode
from pipeline.settings import Settings
from pipeline.supervisor.readiness import await_first_window

SETTINGS = Settings(clusters=2, subscribers=1)
NAMES = topics(SETTINGS)
DEADLINE_S = 30.0


class Chain:
    """A chain in memory: it answers the probe with a window and announces its subscribers."""

    def __init__(self, bus: MemoryBus, announced: dict[str, str | None], windows: bool = True) -> None:
        self._bus = bus
        self._announced = announced
        self._windows = windows
        self.probes: list[bytes | None] = []
        self.stop = threading.Event()
        bus.ensure(NAMES.events, NAMES.aggregates, NAMES.subscribers)
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
                    if self._windows:
                        offsets = {"emoji-events-0": (record.offset, record.offset)}
                        window = Window("e", 5, 1, 2, offsets, 0, [], malformed=1)
                        writer.send(NAMES.aggregates.name, encode(window))
                for cluster, last in self._announced.items():
                    announcement = Announcement("1", cluster, f"http://{cluster}", 0, 1, last)
                    writer.send(NAMES.subscribers.name, encode(announcement), key=cluster.encode())


def test_ready_when_every_subscriber_has_sent_the_probes_window() -> None:
    """One null record is sent; the result is every subscriber's announcement, sorted by cluster and name."""
    bus = MemoryBus()
    with Chain(bus, {"2": "e:6", "1": "e:5"}) as chain:
        ready = await_first_window(bus, SETTINGS, {}, threading.Event(), DEADLINE_S)
    assert [announcement.url for announcement in ready] == ["http://1", "http://2"]
    assert chain.probes == [None]
    # The routes exist before the probe, so that a cluster whose publisher starts late gets its window.
    assert read(bus.tail(NAMES.clusters.name, 9)) == {"1": ClusterRoute("1", 0), "2": ClusterRoute("2", 0)}


@pytest.mark.parametrize(
    ("announced", "windows", "missing"),
    [
        ({"1": "e:5", "2": "e:4"}, True, "still missing: subscriber 2/1:"),
        ({"1": "e:5"}, True, "still missing: subscriber 2/1:"),
        ({"1": "e:5", "2": None}, True, "still missing: subscriber 2/1:"),
        ({"1": "d:9", "2": "e:5"}, True, "still missing: subscriber 1/1:"),
        ({"1": "e:5", "2": "e:5"}, False, "still missing: Spark's first window:"),
    ],
)
def test_timeout_names_stages_that_are_not_ready(announced: dict[str, str | None], windows: bool, missing: str) -> None:
    """A silent subscriber, one that is behind or in another epoch, or Spark without a window."""
    bus = MemoryBus()
    with Chain(bus, announced, windows), pytest.raises(EmoStreamError, match=missing) as caught:
        await_first_window(bus, SETTINGS, {}, threading.Event(), 2.0)
    assert "--ready-timeout-s" in str(caught.value)


def test_unhealthy_stage_is_named() -> None:
    """A stage whose health URL does not answer is missing, although the window has passed through."""
    bus = MemoryBus()
    with Chain(bus, {"1": "e:5", "2": "e:5"}), pytest.raises(EmoStreamError, match="still missing: ingest:"):
        await_first_window(bus, SETTINGS, {"ingest": "http://127.0.0.1:1/healthz"}, threading.Event(), 2.0)


def test_stop_ends_the_wait() -> None:
    """A stop during the start returns at once, not at the timeout."""
    bus, stop = MemoryBus(), threading.Event()
    stop.set()
    began_s = time.monotonic()
    assert await_first_window(bus, SETTINGS, {}, stop, 10 * DEADLINE_S) == []
    assert time.monotonic() - began_s < DEADLINE_S
