"""Which clusters the main publisher routes to: what the topic `clusters` says, how a cluster joins and leaves.

A cluster's publisher joins by itself and never leaves by itself: one that is restarted misses nothing. Only whoever
removes a cluster (`python -m pipeline scale`) says that it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import logs
from pipeline.buses.bus import Bus, Record
from pipeline.delivering.following import ALL
from pipeline.errors import MessageError
from pipeline.messages import Route, decode_route, encode
from pipeline.topics import Topics

log = logs.get(__name__)


def read(records: Iterable[Record]) -> dict[str, Route | None]:
    """Return the last word of `records` on each cluster: its route, or None for one that has left."""
    said: dict[str, Route | None] = {}
    for record in records:
        if record.key is None:
            continue
        try:
            route = None if record.value is None else decode_route(record.value)
        except MessageError as error:
            log.error("skipped a record that is no route", offset=record.offset, reason=str(error))
            continue
        said[record.key.decode(errors="replace")] = route
    return said


def join(bus: Bus, names: Topics, clusters: Iterable[str]) -> None:
    """Have windows routed to `clusters` from now on; those that are routed to already keep their place."""
    bus.ensure(names.aggregates, names.clusters)
    said = read(bus.tail(names.clusters.name, ALL))
    new = [cluster for cluster in clusters if said.get(cluster) is None]
    if not new:
        return
    from_offset = bus.ends(names.aggregates.name)[0]
    writer = bus.writer()
    try:
        for cluster in new:
            writer.send(names.clusters.name, encode(Route(cluster, from_offset)), cluster.encode())
        writer.flush()
    finally:
        writer.close()
    log.info("joined", clusters=new, from_offset=from_offset)


def leave(bus: Bus, names: Topics, cluster: str) -> None:
    """Have nothing routed to `cluster` any more."""
    writer = bus.writer()
    try:
        writer.send(names.clusters.name, None, cluster.encode())
        writer.flush()
    finally:
        writer.close()
