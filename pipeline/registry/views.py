"""The documents of clients and clusters. Pure."""

from __future__ import annotations

from itertools import groupby

from pipeline.addresses import SubscriberId, websocket_url
from pipeline.http_messages import ClientView, ClusterList, ClusterView, SubscriberView
from pipeline.messages import Announcement, Registration, Transport
from pipeline.registry.assignments import Assignments
from pipeline.units import NS_PER_S

PATHS: dict[Transport, str] = {"sse": "stream", "websocket": "socket", "poll": "windows"}
"""The last part of each transport's path, here and at every subscriber."""

# A subscriber announces itself once per second: after three missed announcements it is shown as late.
LATE_S = 3.0


def client_view(registration: Registration, registry_url: str, live: bool) -> ClientView:
    """Return the public document of a client: everything but its token's digest."""
    client_url = f"{registry_url}/clients/{registration.client_id}"
    stream_url = of_transport(f"{client_url}/{PATHS[registration.transport]}", registration.transport)
    return ClientView(
        client_id=registration.client_id,
        cluster=registration.cluster,
        subscriber=registration.subscriber,
        registered_ns=registration.registered_ns,
        transport=registration.transport,
        stream_url=stream_url,
        tickets_url=f"{client_url}/tickets",
        live=live,
    )


def of_transport(url: str, transport: Transport) -> str:
    """Return an http:// or https:// URL with the scheme of a client's transport."""
    return websocket_url(url) if transport == "websocket" else url


def handshake_location(url: str, registry_url: str) -> str:
    """Return the Location that redirects a WebSocket handshake to `url`, which is http:// or https://.

    `websockets` wants ws:// there and aiohttp http://. Without a scheme it is that of the request, for both.
    """
    scheme, _, rest = url.partition(":")
    return rest if registry_url.startswith(f"{scheme}:") else websocket_url(url)


def clusters_view(assignments: Assignments, now_ns: int) -> ClusterList:
    """Return the document of `GET /clusters`: every known subscriber, its load and its health."""
    clusters = groupby(assignments.subscribers(), key=lambda member: member.cluster)
    return ClusterList([_cluster_view(assignments, cluster, list(members), now_ns) for cluster, members in clusters])


def _cluster_view(assignments: Assignments, cluster: str, members: list[Announcement], now_ns: int) -> ClusterView:
    live = [member for member in members if assignments.is_live(member, now_ns)]
    return ClusterView(
        cluster=cluster,
        clients=sum(member.clients for member in live),
        live=len(live),
        subscribers=[_subscriber_view(assignments, member, now_ns) for member in members],
    )


def _subscriber_view(assignments: Assignments, member: Announcement, now_ns: int) -> SubscriberView:
    age_s = (now_ns - member.announced_ns) / NS_PER_S
    live = assignments.is_live(member, now_ns)
    return SubscriberView(
        subscriber=member.subscriber,
        url=member.url,
        clients=member.clients,
        registered=assignments.registered(SubscriberId(member.cluster, member.subscriber)),
        live=live,
        health="silent" if not live else "late" if age_s > LATE_S else "ok",
        age_s=round(age_s, 3),
        last_event_id=member.last_event_id,
    )
