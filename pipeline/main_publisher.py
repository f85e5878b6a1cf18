"""The main publisher: sends every window to every cluster, one record per cluster.

The topic `clusters` lists the clusters. Each has its own forwarder, so a cluster that joins, leaves or catches up does
not affect the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial

import msgspec

from pipeline import cluster_routes, emojis, environment, lifecycle, logs, settings
from pipeline.backoff import bound_s
from pipeline.bus.base import Bus, Record
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import Topics, topics
from pipeline.dead_letters import DeadLetters
from pipeline.errors import EmoStreamError, MessageError
from pipeline.forwarding import POLL_S, Forwarder
from pipeline.messages import EMOJI_MAX, ClusterRoute, Window, decode_window
from pipeline.metrics.exposition import collector_registry
from pipeline.metrics.server import serving
from pipeline.metrics.windows import WindowMeters
from pipeline.turns import Turns

log = logs.get(__name__)

STAGE = "main-publisher"
AGAIN_S, AGAIN_MOST_S = 0.5, 30.0
"""How long a forwarder that failed waits before it starts again: at first, doubled each time, and at most."""
OPTIONS = (
    "bootstrap_servers",
    "kafka_security_file",
    "kafka_wait_s",
    "topic_prefix",
    "host",
    "metrics_port",
    "log_level",
)


def for_clusters(window: Window) -> Window:
    """Return the window as every cluster gets it; a cluster's own publisher then applies the cluster's view.

    `carried` and `appended_ms` are removed: they are state of the Spark job, and clients do not show them.
    """
    return msgspec.structs.replace(window, carried=msgspec.UNSET, appended_ms=msgspec.UNSET)


def decode_emitted(value: bytes | None) -> Window:
    """Return the window that a record of `emoji-aggregates` holds.

    Raises MessageError for one that Spark's job does not emit: it does not say of each partition when its last record
    was appended, or it counts something else than emoji. Any program that may write to Kafka can write any text.
    """
    window = decode_window(value)
    if (window.appended_ms or {}).keys() != window.offsets.keys():
        raise MessageError("not a window of the Spark job: `appended_ms` and `offsets` name different partitions")
    for cell in window.reactions:
        if not emojis.counts(cell.emoji_type):
            raise MessageError(f"not a window of the Spark job: it counts {cell.emoji_type[:EMOJI_MAX]!r}, no emoji")
    return window


class ClusterForwarders:
    """One forwarder per cluster that has joined and not left, each in its own thread.

    `connect` opens a connection to Kafka for one thread. A forwarder that fails, whether Kafka is away or its route is
    wrong, starts again after a while; the others go on.
    """

    def __init__(self, connect: Callable[[], Bus], names: Topics) -> None:
        self._connect = connect
        self._names = names
        self._failing: dict[str, str] = {}
        self._running: dict[str, tuple[ClusterRoute, threading.Event, threading.Thread]] = {}
        self._ready = False
        self._forwarders: dict[str, Forwarder] = {}
        self.turns = Turns()
        """Whether the topic `clusters` is followed."""
        # Shared by all clusters: a window that was sent to three clusters counts three times.
        self.meters = WindowMeters(STAGE)

    def health(self) -> dict[str, object]:
        """Return the answer of `GET /healthz`."""
        failing = dict(self._failing)
        status = f"cannot forward to {', '.join(sorted(failing))}" if failing else "ok" if self._ready else "starting"
        turns = [self.turns, *(each.turns for each in list(self._forwarders.values()))]
        return {
            "status": status,
            "stage": STAGE,
            "clusters": sorted(self._running),
            "failing": failing,
            "stalled_s": round(max(each.stalled_s() for each in turns), 3),
        }

    def apply(self, records: Iterable[Record], skipped: Callable[[Record, str], object] = lambda *_: None) -> None:
        """Start and stop forwarders according to `records` of the topic `clusters`; keep those of unchanged routes.

        `skipped(record, reason)` is called with each that is no route.
        """
        self._ready = True
        for cluster, cluster_route in cluster_routes.read(records, skipped).items():
            running = self._running.get(cluster)
            if cluster_route is not None and running is not None and running[0] == cluster_route:
                continue
            self._stop(cluster)
            if cluster_route is not None:
                self._start(cluster_route)

    def close(self) -> None:
        """Stop every forwarder."""
        for _, stop, _ in self._running.values():
            stop.set()
        for cluster in list(self._running):
            self._stop(cluster)

    def _start(self, cluster_route: ClusterRoute) -> None:
        stop = threading.Event()
        thread = threading.Thread(
            target=self._forward, args=(cluster_route, stop), name=f"forward-{cluster_route.cluster}", daemon=True
        )
        self._running[cluster_route.cluster] = (cluster_route, stop, thread)
        thread.start()

    def _stop(self, cluster: str) -> None:
        running = self._running.pop(cluster, None)
        if running is not None:
            _, stop, thread = running
            stop.set()
            thread.join()
            log.info("stopped forwarding", cluster=cluster)

    def _forward(self, cluster_route: ClusterRoute, stop: threading.Event) -> None:
        cluster, source = cluster_route.cluster, self._names.aggregates.name
        output = self._names.cluster(cluster)
        outputs = {output.name: for_clusters}
        failures = 0
        while not stop.is_set():
            begun_s = time.monotonic()
            try:
                with closing(self._connect()) as bus, closing(DeadLetters(bus, self._names, STAGE)) as letters:
                    bus.ensure(output, self._names.dead_letters)
                    start = cluster_routes.placed(cluster_route, bus.ends(source)[0]).from_offset
                    forwarder = Forwarder(
                        STAGE,
                        bus,
                        source,
                        bus,
                        outputs,
                        start=start,
                        meters=self.meters,
                        letters=letters,
                        decode=decode_emitted,
                    )
                    self._failing.pop(cluster, None)
                    self._forwarders[cluster] = forwarder
                    forwarder.run(stop)
            except Exception as error:
                failures = 0 if time.monotonic() - begun_s > AGAIN_MOST_S else failures + 1
                again_s = bound_s(failures, AGAIN_S, AGAIN_MOST_S)
                self._failing[cluster] = str(error)
                known = isinstance(error, EmoStreamError)
                log.error("forwarding failed", cluster=cluster, reason=str(error), again_s=again_s, exc_info=not known)
                stop.wait(again_s)
        self._failing.pop(cluster, None)
        self._forwarders.pop(cluster, None)


def run(values: settings.Settings) -> None:
    """Forward `emoji-aggregates` to `cluster-{c}` for every cluster c, until a signal stops it."""
    stop = lifecycle.stop_event()
    names = topics(values)

    def connect() -> KafkaBus:
        return KafkaBus(values.kafka, values.kafka_wait_s)

    with (
        closing(connect()) as bus,
        closing(ClusterForwarders(connect, names)) as forwarders,
        serving(values.host, values.metrics_port, collector_registry(forwarders.meters), forwarders.health),
    ):
        bus.ensure(names.aggregates, names.clusters, names.dead_letters)
        follow(bus, names, forwarders, stop)


def follow(bus: Bus, names: Topics, forwarders: ClusterForwarders, stop: threading.Event) -> None:
    """Apply the topic `clusters` to `forwarders`, its history and new records, until `stop`."""
    ends = bus.ends(names.clusters.name)
    with closing(DeadLetters(bus, names, STAGE)) as letters:
        skipped = partial(letters.put, names.clusters.name)
        # The history in one piece: of a cluster that left and joined again, only the last route counts.
        forwarders.apply(bus.records(names.clusters.name, ends), skipped)
        with closing(bus.reader(names.clusters.name, ends)) as reader:
            while not stop.is_set():
                forwarders.turns.mark()
                forwarders.apply(reader.poll(POLL_S), skipped)


def main() -> None:
    """`python -m pipeline.main_publisher`."""
    values = settings.main("pipeline.main_publisher", "Send every window to every cluster.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("pipeline.main_publisher", lambda: run(values))


if __name__ == "__main__":
    environment.restart_without_others()
    main()
