"""A stage's metrics in Prometheus' text format.

Hot code counts in plain numbers, which a collector reads at each scrape, so that they cost nothing between two scrapes.
Code that runs at most a few times per second uses the metrics of prometheus_client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

PATH = "/metrics"
# All start at 0: rate() does not see the first event of a series that starts with it.
STATUSES = (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503)


def collector_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry of `collectors` and of this process's CPU, memory and open files."""
    return bare_registry(ProcessCollector(registry=None), *collectors)


def bare_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry of `collectors` alone."""
    # They would add one series per counter, all with the start time of the process.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return a scrape's (body, content type); `accept` is the request's header, "" for Prometheus' own text format."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def gauge(name: str, text: str, labels: Sequence[str], samples: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a gauge for a collector to yield; `samples` maps the values of `labels` to a number."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), samples)


def counter(name: str, text: str, labels: Sequence[str], samples: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a counter for a collector to yield; its samples' names end in `_total`."""
    return _filled(CounterMetricFamily(name, text, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Mapping[tuple[str, ...], float]) -> Metric:
    for values, sample in samples.items():
        family.add_metric(values, sample)
    return family


class Refusals:
    """Counts the requests that a stage answered with an error, by status; `labels` identify the stage."""

    def __init__(self, name: str, **labels: str) -> None:
        self._labels = labels
        self._counter = Counter(
            name, "Requests answered with an error, by HTTP status.", [*labels, "status"], registry=None
        )
        for status in STATUSES:
            self._counter.labels(**labels, status=str(status))
        self.collect = self._counter.collect

    def count(self, status: int) -> None:
        """Count an answer if its status is an error."""
        if status >= 400:
            self._counter.labels(**self._labels, status=str(status)).inc()
