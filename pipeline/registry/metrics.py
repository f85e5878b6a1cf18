"""The registry's metrics, and the list of subscribers that Prometheus should scrape."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit

import flask
from prometheus_client import Counter, Metric

from pipeline.addresses import SubscriberId
from pipeline.flask_answers import uncached_json
from pipeline.http_messages import Targets
from pipeline.messages import Announcement
from pipeline.metrics.exposition import PATH, Refusals, collector_registry, gauge
from pipeline.metrics.flask_route import add_route
from pipeline.problems import Refusal
from pipeline.registry.assignments import Assignments
from pipeline.registry.batch_writer import BatchWriter


class RegistryMeters:
    """Figures of one registry; `lock` guards `assignments`. Any thread may increase the counters."""

    def __init__(
        self, assignments: Assignments, lock: threading.Lock, writer: BatchWriter, clock_ns: Callable[[], int]
    ) -> None:
        self._assignments = assignments
        self._lock = lock
        self._writer = writer
        self._clock_ns = clock_ns
        self._refusals = Refusals("emostream_registry_requests_refused")
        self.registrations = Counter(
            "emostream_registry_registrations", "Clients registered by this process.", registry=None
        )
        self.removals = Counter("emostream_registry_removals", "Clients removed by their own request.", registry=None)
        self.moves = Counter(
            "emostream_registry_moves", "Clients moved because their subscriber was not live.", registry=None
        )

    def attach(self, app: flask.Flask) -> None:
        """Add `GET /metrics` and `GET /targets` to `app`, and count its refusals."""
        add_route(app, collector_registry(self))

        @app.get("/targets")
        def targets() -> flask.Response:
            now_ns = self._clock_ns()
            with self._lock:
                live = self._assignments.live(now_ns)
            return uncached_json(scrape_targets(live))

        @app.after_request
        def count_refusal(response: flask.Response) -> flask.Response:
            self._refusals.count(response.status_code)
            return response

    def refused(self, refusal: Refusal) -> None:
        """Count a request that was refused before the application saw it."""
        self._refusals.count(refusal.status)

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        with self._lock:
            clients = self._assignments.by_cluster()
            now_ns = self._clock_ns()
            states: Tally[tuple[str, ...]] = Tally(
                (member.cluster, "live" if self._assignments.is_live(member, now_ns) else "silent")
                for member in self._assignments.subscribers()
            )
        for cluster, _ in list(states):
            clients.setdefault(cluster, 0)
            for state in ("live", "silent"):
                states.setdefault((cluster, state), 0)
        for counter in (self.registrations, self.removals, self.moves, self._refusals):
            yield from counter.collect()
        yield gauge(
            "emostream_registry_clients",
            "Registered clients by cluster.",
            ["cluster"],
            {(cluster,): count for cluster, count in clients.items()},
        )
        yield gauge(
            "emostream_registry_subscribers",
            "Subscribers by state: live (announced recently) or silent.",
            ["cluster", "state"],
            states,
        )
        yield gauge(
            "emostream_registry_waiting_records",
            "Registrations, moves and removals that wait to be written to Kafka.",
            [],
            {(): len(self._writer)},
        )


def scrape_targets(live: Iterable[Announcement]) -> list[Targets]:
    """Return subscribers in the format of Prometheus' HTTP service discovery, each with its name as label `stage`.

    Source: https://prometheus.io/docs/prometheus/latest/http_sd/
    """
    targets = []
    for member in live:
        url = urlsplit(member.url)
        labels = {"__scheme__": url.scheme, "__metrics_path__": url.path + PATH}
        name = SubscriberId(member.cluster, member.subscriber).stage
        targets.append(Targets([url.netloc], {**labels, "stage": name}))
    return targets
