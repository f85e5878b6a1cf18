"""The twin's registry, publishers and subscribers: they take windows to the clients at planned moments."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from experiments.twin.batches import changed
from experiments.twin.clockwork import Clockwork
from experiments.twin.http import Handle, HttpConnection, answer
from experiments.twin.ingest import drawn_ns, fate_of
from experiments.twin.settings import DELIVERY_FATES, Twin
from experiments.twin.truth import Truth
from experiments.units import NS_PER_MS
from pipeline import sse
from pipeline.messages import Hop, Window, encode

OPENED = b"".join(
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        sse.retry(1000),
        sse.comment("connected"),
    )
)


@dataclass
class Subscriber:
    """One subscriber: its names, the address at which it listens, and the streams of its clients."""

    cluster: str
    subscriber: str
    url: str = ""
    streams: dict[str, HttpConnection] = field(default_factory=dict)


class Delivery:
    """Registers clients, holds their streams, and sends each window to all of them."""

    def __init__(self, twin: Twin, clockwork: Clockwork, truth: Truth) -> None:
        self.subscribers = [
            Subscriber(str(cluster), str(subscriber))
            for cluster in range(1, twin.clusters + 1)
            for subscriber in range(1, twin.subscribers + 1)
        ]
        self.registry_url = ""
        self._twin = twin
        self._clockwork = clockwork
        self._truth = truth
        self._rng = random.Random(f"{twin.seed} delivery")
        self._fates = random.Random(f"{twin.seed} deliveries")
        self._assigned: dict[str, Subscriber] = {}
        self._registered = 0

    def register(self, connection: HttpConnection, method: str, path: str, body: bytes) -> None:
        """Answer one request to the registry."""
        parts = path.partition("?")[0].strip("/").split("/")
        if (method, path) == ("POST", "/clients"):
            subscriber = self.subscribers[self._registered % len(self.subscribers)]
            client_id = f"client-{self._registered:05d}"
            self._registered += 1
            self._assigned[client_id] = subscriber
            credentials = {
                "client_id": client_id,
                "token": f"token-{client_id}",
                "cluster": subscriber.cluster,
                "subscriber": subscriber.subscriber,
                "stream_url": f"{self.registry_url}/clients/{client_id}/stream",
            }
            connection.send(answer(201, credentials))
        elif method == "GET" and parts[::2] == ["clients", "stream"] and parts[1] in self._assigned:
            connection.send(answer(307, None, f"Location: {self._assigned[parts[1]].url}/clients/{parts[1]}/stream"))
        elif method == "DELETE" and len(parts) == 2 and parts[1] in self._assigned:
            del self._assigned[parts[1]]
            connection.send(answer(204))
        elif (method, path) == ("GET", "/healthz"):
            connection.send(answer(200, {"stage": "registry", "status": "ok", "clients": len(self._assigned)}))
        else:
            connection.send(answer(404, {"title": "Not Found", "status": 404, "detail": f"{method} {path}"}))

    def streams_of(self, subscriber: Subscriber) -> Handle:
        """Return what answers the requests to one subscriber."""

        def handle(connection: HttpConnection, method: str, path: str, body: bytes) -> None:
            parts = path.partition("?")[0].strip("/").split("/")
            if method != "GET" or parts[::2] != ["clients", "stream"]:
                connection.send(answer(404, {"title": "Not Found", "status": 404, "detail": f"{method} {path}"}))
                return
            client_id = parts[1]
            subscriber.streams[client_id] = connection

            def lost() -> None:
                if subscriber.streams.get(client_id) is connection:
                    del subscriber.streams[client_id]

            connection.on_lost = lost
            connection.send(OPENED)

        return handle

    def publish(self, window: Window, emitted_ns: int) -> None:
        """Send a window through the main publisher, the clusters' publishers and the subscribers."""
        self._clockwork.at(emitted_ns + drawn_ns(self._rng, self._twin.publish_ms), partial(self._main, window))

    def _main(self, window: Window) -> None:
        hop = _hop("main-publisher", window)
        window = msgspec.structs.replace(window, hops=(*window.hops, hop))
        for cluster in dict.fromkeys(subscriber.cluster for subscriber in self.subscribers):
            moment_ns = hop.sent_ns + drawn_ns(self._rng, self._twin.cluster_ms)
            self._clockwork.at(moment_ns, partial(self._cluster, window, cluster))

    def _cluster(self, window: Window, cluster: str) -> None:
        hop = _hop("cluster-publisher", window)
        window = msgspec.structs.replace(window, cluster=cluster, hops=(*window.hops, hop))
        for subscriber in self.subscribers:
            if subscriber.cluster == cluster:
                moment_ns = hop.sent_ns + drawn_ns(self._rng, self._twin.subscriber_ms)
                self._clockwork.at(moment_ns, partial(self._subscriber, window, subscriber))

    def _subscriber(self, window: Window, subscriber: Subscriber) -> None:
        hop = _hop("subscriber", window)
        window = msgspec.structs.replace(window, hops=(*window.hops, hop))
        framed = {"": _framed(window)}
        for client_id, connection in list(subscriber.streams.items()):
            fate = fate_of(self._fates, self._twin, DELIVERY_FATES).removesuffix("_deliveries")
            if fate not in framed:
                other = changed(window, added=fate == "alter", moved=fate == "move")
                framed[fate] = _framed(other) * (2 if fate == "duplicate" else 1)
            moment_ns = hop.sent_ns + drawn_ns(self._rng, self._twin.network_ms)
            if fate == "hold":
                moment_ns += round(self._twin.held_ms * NS_PER_MS)
            stamps = tuple(each.sent_ns for each in window.hops)
            row = (client_id, window.window, *stamps, moment_ns)
            self._clockwork.at(moment_ns, self._deliver(connection, framed[fate], row, fate))

    def _deliver(
        self, connection: HttpConnection, data: bytes, row: tuple[object, ...], fate: str
    ) -> Callable[[], None]:
        def deliver() -> None:
            sent_ns = time.time_ns()
            if fate != "lose":
                connection.send(data)
            self._truth.deliveries.append((*row, sent_ns, fate))

        return deliver


def _hop(stage: str, window: Window) -> Hop:
    now_ns = time.time_ns()
    return Hop(stage, window.window, now_ns, now_ns)


def _framed(window: Window) -> bytes:
    return sse.encode_event(window.event_id, "window", encode(window))
