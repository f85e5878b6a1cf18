"""The main publisher: every window goes to every cluster, one record a cluster.

The topic `clusters` says which clusters there are. Each has a forwarder of its own, so that one which joins, leaves or
has windows to catch up on is not noticed by the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import msgspec

from pipeline import cluster_routes, lifecycle, logs, settings
from pipeline.bus.base import Bus, Record
from pipeline.bus.follower import ALL
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import Topics, topics
from pipeline.forwarding import POLL_S, Forwarder
from pipeline.messages import ClusterRoute, Window
from pipeline.metrics.exposition import registry
from pipeline.metrics.server import serving
from pipeline.metrics.windows import WindowMeters

log = logs.get(__name__)

STAGE = "main-publisher"
OPTIONS = ("bootstrap_servers", "kafka_wait_s", "topic_prefix", "host", "metrics_port", "log_level")


def for_clusters(window: Window) -> Window:
    """Every cluster gets the whole window; what it makes of it is its own publisher's business.

    Only `carried` stays behind: it is the Spark job's memory, and nothing that is shown.
    """
    return msgspec.structs.replace(window, carried=msgspec.UNSET)


class ClusterRoutes:
    """Forwards to every cluster that has joined and has not left, each from a thread of its own.

    `connect` opens a connection to Kafka, which one thread uses alone; `failed(error)` is called from the thread of a
    forwarder that gave up.
    """

    def __init__(self, connect: Callable[[], Bus], names: Topics, failed: Callable[[BaseException], None]) -> None:
        self._connect = connect
        self._names = names
        self._failed = failed
        self._running: dict[str, tuple[ClusterRoute, threading.Event, threading.Thread]] = {}
        self._ready = False
        # Of all clusters together: a window that went to three is three.
        self.meters = WindowMeters(STAGE)

    def health(self) -> dict[str, object]:
        """What `GET /healthz` answers."""
        return {"status": "ok" if self._ready else "starting", "stage": STAGE, "clusters": sorted(self._running)}

    def hear(self, records: list[Record]) -> None:
        """Take what the topic says; a route that stands already goes on as it is."""
        self._ready = True
        for cluster, route in cluster_routes.read(records).items():
            running = self._running.get(cluster)
            if route is not None and running is not None and running[0] == route:
                continue
            self._end(cluster)
            if route is not None:
                self._begin(route)

    def close(self) -> None:
        """End every forwarder."""
        for _, stop, _ in self._running.values():
            stop.set()
        for cluster in list(self._running):
            self._end(cluster)

    def _begin(self, route: ClusterRoute) -> None:
        stop = threading.Event()
        thread = threading.Thread(
            target=self._forward, args=(route, stop), name=f"forward-{route.cluster}", daemon=True
        )
        self._running[route.cluster] = (route, stop, thread)
        thread.start()

    def _end(self, cluster: str) -> None:
        running = self._running.pop(cluster, None)
        if running is not None:
            _, stop, thread = running
            stop.set()
            thread.join()
            log.info("routes no more", cluster=cluster)

    def _forward(self, route: ClusterRoute, stop: threading.Event) -> None:
        source, output = self._names.aggregates.name, self._names.cluster(route.cluster)
        try:
            with closing(self._connect()) as bus:
                bus.ensure(output)
                outputs = {output.name: for_clusters}
                Forwarder(STAGE, bus, source, bus, outputs, start=route.from_offset, meters=self.meters).run(stop)
        except Exception as error:
            self._failed(error)


def run(values: settings.Settings) -> None:
    """Forward `emoji-aggregates` to `cluster-{c}` for every cluster c there is, until told to stop.

    Raises what made a forwarder give up.
    """
    stop = lifecycle.stop_event()
    names = topics(values)
    errors: list[BaseException] = []

    def failed(error: BaseException) -> None:
        errors.append(error)
        stop.set()

    def connect() -> KafkaBus:
        return KafkaBus(values.kafka, values.kafka_wait_s)

    with (
        closing(connect()) as bus,
        closing(ClusterRoutes(connect, names, failed)) as routes,
        serving(values.host, values.metrics_port, registry(routes.meters), routes.health),
    ):
        bus.ensure(names.aggregates, names.clusters)
        follow(bus, names, routes, stop)
    if errors:
        raise errors[0]


def follow(bus: Bus, names: Topics, routes: ClusterRoutes, stop: threading.Event) -> None:
    """Keep `routes` as the topic `clusters` has them until `stop`."""
    ends = bus.ends(names.clusters.name)
    # All that was said at once: a cluster that left and came back must not be routed to as it first was.
    routes.hear(bus.tail(names.clusters.name, ALL))
    with closing(bus.reader(names.clusters.name, ends)) as reader:
        while not stop.is_set():
            routes.hear(reader.poll(POLL_S))


def main() -> None:
    """`python -m pipeline.main_publisher`."""
    values = settings.main("pipeline.main_publisher", "Route every window to every cluster.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("pipeline.main_publisher", lambda: run(values))


if __name__ == "__main__":
    main()
