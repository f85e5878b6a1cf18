"""The refusals that several routes of the registry raise. Pure."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.problems import Refusal

RETRY_AFTER = {"Retry-After": "2"}
FULL_RETRY_AFTER = {"Retry-After": "60"}


def no_live_subscriber(cluster: str | None = None, live: Collection[str] = ()) -> Refusal:
    """Return the refusal of a request that needs a live subscriber, of `cluster` if given; `live` clusters have one."""
    where = "" if cluster is None else f" in cluster {cluster!r}"
    others = f"; clusters with a live subscriber: {', '.join(sorted(live))}" if live else ""
    return Refusal(
        503,
        "No live subscriber",
        f"no subscriber{where} has announced itself recently: start one (python -m pipeline.subscriber), "
        f"check GET /clusters, or try again{others}",
        headers=RETRY_AFTER,
    )


def unknown_client(client_id: str) -> Refusal:
    """Return the refusal of a request about a client that is not registered."""
    return Refusal(404, "No such client", f"client {client_id[:80]!a} is not registered: POST /clients to register one")


def registry_full(clients_max: int, idle_s: float) -> Refusal:
    """Return the refusal of a registration beyond `clients_max`."""
    return Refusal(
        503,
        "Too many clients",
        f"clients_max={clients_max} clients are registered: try again later; a client without a stream for "
        f"client_idle_s={idle_s:g} s is removed",
        headers=FULL_RETRY_AFTER,
    )


def kafka_unreachable(error: Exception) -> Refusal:
    """Return the refusal of a change that Kafka did not acknowledge."""
    return Refusal(503, "Kafka is out of reach", str(error), headers=RETRY_AFTER)
