"""Which clusters the main publisher routes to: what the topic `clusters` says, how a cluster joins and leaves.

A cluster's publisher and subscribers join by themselves and never leave by themselves: who is restarted misses nothing.
Only whoever removes a cluster (`python -m pipeline scale`) says that it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from pipeline import logs
from pipeline.bus.base import Bus, Record
from pipeline.bus.follower import ALL
from pipeline.bus.records import keyed
from pipeline.bus.topics import Topics
from pipeline.messages import ClusterRoute, decode_route, encode

log = logs.get(__name__)


def read(records: Iterable[Record]) -> dict[str, ClusterRoute | None]:
    """Return the last word of `records` on each cluster: its route, or None for one that has left."""
    return dict(keyed(records, decode_route, "route"))


def join(bus: Bus, names: Topics, clusters: Iterable[str]) -> list[ClusterRoute]:
    """Have windows routed to `clusters` from now on, and return how; those that are routed to already stay so."""
    bus.ensure(names.aggregates, names.clusters)
    said = read(bus.tail(names.clusters.name, ALL))
    from_offset = bus.ends(names.aggregates.name)[0]
    routes = [said.get(cluster) or ClusterRoute(cluster, from_offset) for cluster in clusters]
    new = [route for route in routes if said.get(route.cluster) is None]
    if new:
        with closing(bus.writer()) as writer:
            for route in new:
                writer.send(names.clusters.name, encode(route), route.cluster.encode())
            writer.flush()
        log.info("joined", clusters=[route.cluster for route in new], from_offset=from_offset)
    return routes


def leave(bus: Bus, names: Topics, cluster: str) -> None:
    """Have nothing routed to `cluster` any more."""
    with closing(bus.writer()) as writer:
        writer.send(names.clusters.name, None, cluster.encode())
        writer.flush()
