"""What the registry tells of itself, and whom of the subscribers Prometheus is to ask."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit

import flask
import msgspec
from prometheus_client import Counter, Metric

from pipeline.addresses import SubscriberId
from pipeline.messages import Announcement
from pipeline.metrics.exposition import PATH, Refusals, collector_registry, gauge
from pipeline.metrics.flask_route import add_route
from pipeline.registry.assignments import Assignments
from pipeline.registry.batch_writer import BatchWriter


class RegistryMeters:
    """Figures of one registry; `lock` guards `roster`. Counters may be raised from any thread."""

    def __init__(
        self, roster: Assignments, lock: threading.Lock, journal: BatchWriter, clock_ns: Callable[[], int]
    ) -> None:
        self._roster = roster
        self._lock = lock
        self._journal = journal
        self._clock_ns = clock_ns
        self._refusals = Refusals("emostream_registry_requests_refused")
        self.registrations = Counter(
            "emostream_registry_registrations", "Clients registered by this process.", registry=None
        )
        self.removals = Counter("emostream_registry_removals", "Clients removed at their own wish.", registry=None)
        self.moves = Counter(
            "emostream_registry_moves", "Clients given another subscriber than the one they had.", registry=None
        )

    def attach(self, app: flask.Flask) -> None:
        """Have `app` answer `GET /metrics` and `GET /targets`, and count what it refuses."""
        add_route(app, collector_registry(self))

        @app.get("/targets")
        def targets() -> flask.Response:
            now_ns = self._clock_ns()
            with self._lock:
                live = self._roster.live(now_ns)
            return flask.Response(msgspec.json.encode(scrape_targets(live)), content_type="application/json")

        @app.after_request
        def answered(response: flask.Response) -> flask.Response:
            self._refusals.count(response.status_code)
            return response

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        with self._lock:
            clients = self._roster.by_cluster()
            now_ns = self._clock_ns()
            states: Tally[tuple[str, ...]] = Tally(
                (member.cluster, "live" if self._roster.is_live(member, now_ns) else "silent")
                for member in self._roster.subscribers()
            )
        for cluster, _ in list(states):
            clients.setdefault(cluster, 0)
            for state in ("live", "silent"):
                states.setdefault((cluster, state), 0)
        for counter in (self.registrations, self.removals, self.moves, self._refusals):
            yield from counter.collect()
        yield gauge(
            "emostream_registry_clients",
            "Clients registered, by cluster.",
            ["cluster"],
            {(cluster,): count for cluster, count in clients.items()},
        )
        yield gauge(
            "emostream_registry_subscribers",
            "Subscribers that announced themselves lately (live), or did and fell silent.",
            ["cluster", "state"],
            states,
        )
        yield gauge(
            "emostream_registry_journal_records",
            "Registrations, moves and removals that wait to be written to Kafka.",
            [],
            {(): len(self._journal)},
        )


def scrape_targets(live: Iterable[Announcement]) -> list[dict[str, object]]:
    """Return subscribers as Prometheus' HTTP service discovery takes them, each with its name as the label `stage`.

    Source: https://prometheus.io/docs/prometheus/latest/http_sd/
    """
    listed: list[dict[str, object]] = []
    for member in live:
        url = urlsplit(member.url)
        labels = {"__scheme__": url.scheme, "__metrics_path__": url.path + PATH}
        name = SubscriberId(member.cluster, member.subscriber).stage
        listed.append({"targets": [url.netloc], "labels": {**labels, "stage": name}})
    return listed
