"""The documents of clients and clusters. Pure."""

from __future__ import annotations

from itertools import groupby
from typing import Literal

import msgspec

from pipeline.addresses import SubscriberId, websocket_url
from pipeline.messages import Announcement, Registration, Transport
from pipeline.registry.assignments import Assignments
from pipeline.units import NS_PER_S

PATHS: dict[Transport, str] = {"sse": "stream", "websocket": "socket", "poll": "windows"}
"""The last part of each transport's path, here and at every subscriber."""

# A subscriber announces itself once per second: after three missed announcements it is shown as late.
LATE_S = 3.0


def client_view(registration: Registration, registry_url: str, live: bool) -> dict[str, object]:
    """Return the public document of a client: everything but its token's digest."""
    document = msgspec.structs.asdict(registration)
    del document["token_sha256"], document["asked"]
    client_url = f"{registry_url}/clients/{registration.client_id}"
    stream_url = of_transport(f"{client_url}/{PATHS[registration.transport]}", registration.transport)
    return {**document, "stream_url": stream_url, "tickets_url": f"{client_url}/tickets", "live": live}


def of_transport(url: str, transport: Transport) -> str:
    """Return an http:// or https:// URL with the scheme of a client's transport."""
    return websocket_url(url) if transport == "websocket" else url


def handshake_location(url: str, registry_url: str) -> str:
    """Return the Location that redirects a WebSocket handshake to `url`, which is http:// or https://.

    `websockets` wants ws:// there and aiohttp http://. Without a scheme it is that of the request, for both.
    """
    scheme, _, rest = url.partition(":")
    return rest if registry_url.startswith(f"{scheme}:") else websocket_url(url)


def clusters_view(assignments: Assignments, now_ns: int) -> list[dict[str, object]]:
    """Return the document of `GET /clusters`: every known subscriber, its load and its health."""
    return [
        {"cluster": cluster, **_cluster_view(assignments, list(members), now_ns)}
        for cluster, members in groupby(assignments.subscribers(), key=lambda member: member.cluster)
    ]


def _cluster_view(assignments: Assignments, members: list[Announcement], now_ns: int) -> dict[str, object]:
    live = [member for member in members if assignments.is_live(member, now_ns)]
    return {
        "clients": sum(member.clients for member in live),
        "live": len(live),
        "subscribers": [_subscriber_view(assignments, member, now_ns) for member in members],
    }


def _subscriber_view(assignments: Assignments, member: Announcement, now_ns: int) -> dict[str, object]:
    age_s = (now_ns - member.announced_ns) / NS_PER_S
    live = assignments.is_live(member, now_ns)
    health: Literal["ok", "late", "silent"] = "silent" if not live else "late" if age_s > LATE_S else "ok"
    return {
        "subscriber": member.subscriber,
        "url": member.url,
        "clients": member.clients,
        "registered": assignments.registered(SubscriberId(member.cluster, member.subscriber)),
        "live": live,
        "health": health,
        "age_s": round(age_s, 3),
        "last_event_id": member.last_event_id,
    }
