"""What the registry shows of clients and clusters. Pure."""

from __future__ import annotations

from itertools import groupby
from typing import Literal

import msgspec

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement, Registration, Transport
from pipeline.registry.assignments import Assignments

PATHS: dict[Transport, str] = {"sse": "stream", "websocket": "socket", "poll": "windows"}
"""The last part of the path that each transport is served at, here and at every subscriber."""

# Three announcements may be missed before anyone is told to worry.
LATE_S = 3.0


def client_view(registration: Registration, registry_url: str, live: bool) -> dict[str, object]:
    """What anyone may know of a client: everything but its token's digest."""
    shown = msgspec.structs.asdict(registration)
    del shown["token_sha256"], shown["asked"]
    path = PATHS[registration.transport]
    return {**shown, "stream_url": f"{registry_url}/clients/{registration.client_id}/{path}", "live": live}


def clusters_view(roster: Assignments, now_ns: int) -> list[dict[str, object]]:
    """The document of `GET /clusters`: every subscriber known, its load, and how it does."""
    return [
        {"cluster": cluster, **_cluster_view(roster, list(members), now_ns)}
        for cluster, members in groupby(roster.subscribers(), key=lambda member: member.cluster)
    ]


def _cluster_view(roster: Assignments, members: list[Announcement], now_ns: int) -> dict[str, object]:
    live = [member for member in members if roster.is_live(member, now_ns)]
    return {
        "clients": sum(member.clients for member in live),
        "live": len(live),
        "subscribers": [_subscriber_view(roster, member, now_ns) for member in members],
    }


def _subscriber_view(roster: Assignments, member: Announcement, now_ns: int) -> dict[str, object]:
    age_s = (now_ns - member.announced_ns) / 1e9
    live = roster.is_live(member, now_ns)
    health: Literal["ok", "late", "silent"] = "silent" if not live else "late" if age_s > LATE_S else "ok"
    return {
        "subscriber": member.subscriber,
        "url": member.url,
        "clients": member.clients,
        "registered": roster.registered(SubscriberId(member.cluster, member.subscriber)),
        "live": live,
        "health": health,
        "age_s": round(age_s, 3),
        "last_event_id": member.last_event_id,
    }
