"""The clusters that the main publisher sends windows to: reading the topic `clusters`, joining and leaving.

A cluster's publisher and subscribers join the cluster, and never leave it when they stop, so that a restart misses no
window. Only the removal of a cluster (`python -m pipeline scale`) ends its route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from pipeline import logs
from pipeline.bus.base import Bus, Record
from pipeline.bus.records import keyed
from pipeline.bus.topics import Topics
from pipeline.messages import ClusterRoute, decode_cluster_route, encode

log = logs.get(__name__)


def read(
    records: Iterable[Record], skipped: Callable[[Record, str], object] = lambda *_: None
) -> dict[str, ClusterRoute | None]:
    """Return each cluster's last record: its route, or None if the cluster has left.

    A record under another key than its cluster's name is logged and skipped: its tombstone would never come.
    `skipped(record, reason)` is called with each that is no route.
    """
    found: dict[str, ClusterRoute | None] = {}
    for key, route in keyed(records, decode_cluster_route, "cluster route", skipped):
        if route is not None and route.cluster != key:
            log.error("skipped a cluster route under another key", key=key, cluster=route.cluster)
            continue
        found[key] = route
    return found


def placed(route: ClusterRoute, end: int) -> ClusterRoute:
    """Return `route`, or one from offset 0 if it begins behind `end`, the end of `emoji-aggregates`.

    Either the topic was made again since the cluster joined, and all that it holds is newer; or another program wrote
    the route. A reader that began there would get everything, and a subscriber that believed it no window at all.
    """
    if route.from_offset <= end:
        return route
    log.error(
        "a cluster route begins behind the end of the windows", cluster=route.cluster, offset=route.from_offset, end=end
    )
    return ClusterRoute(route.cluster, 0)


def join(bus: Bus, names: Topics, clusters: Iterable[str]) -> list[ClusterRoute]:
    """Route windows to `clusters` from now on and return the routes.

    An existing route stays unchanged, unless it is to be `placed` anew.
    """
    bus.ensure(names.aggregates, names.clusters)
    existing = read(bus.records(names.clusters.name, bus.ends(names.clusters.name)))
    # Read after the routes: a route that is right begins before it.
    end = bus.ends(names.aggregates.name)[0]
    routes = [placed(existing.get(cluster) or ClusterRoute(cluster, end), end) for cluster in clusters]
    new = [cluster_route for cluster_route in routes if existing.get(cluster_route.cluster) != cluster_route]
    if new:
        with closing(bus.writer()) as writer:
            for cluster_route in new:
                writer.send(names.clusters.name, encode(cluster_route), cluster_route.cluster.encode())
            writer.flush()
        log.info("joined", routes={each.cluster: each.from_offset for each in new})
    return routes


def leave(bus: Bus, names: Topics, cluster: str) -> None:
    """End the route to `cluster`."""
    with closing(bus.writer()) as writer:
        writer.send(names.clusters.name, None, cluster.encode())
        writer.flush()
