"""A stage's figures in the form that Prometheus reads.

Figures are kept where the thing counted is, as plain numbers or, where it happens at most a few times a second, as
metrics of prometheus_client. A collector reads them when it is asked: between two scrapes nobody pays for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

PATH = "/metrics"
# Set to nought from the beginning: a series that begins with its first event hides that event from rate().
STATUSES = (400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503)


def registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry of `collectors` and of what the system knows of this process: CPU, memory, open files."""
    return bare_registry(ProcessCollector(registry=None), *collectors)


def bare_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry of `collectors` alone."""
    # They would say for each series once more when the process began.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    found = CollectorRegistry()
    for collector in collectors:
        found.register(collector)
    return found


def expose(found: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return a scrape's (body, content type); `accept` is the request's header, "" for Prometheus' own text format."""
    encode, content_type = choose_encoder(accept)
    return encode(found), content_type


def gauge(name: str, text: str, labels: Sequence[str], samples: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a gauge as a collector yields it: `samples` maps the values of `labels` to a figure."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), samples)


def counter(name: str, text: str, labels: Sequence[str], samples: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a counter as a collector yields it; its samples' names get `_total`."""
    return _filled(CounterMetricFamily(name, text, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Mapping[tuple[str, ...], float]) -> Metric:
    for values, sample in samples.items():
        family.add_metric(values, sample)
    return family


class Refusals:
    """A counter of the requests a stage answered with an error, by status; `labels` are those of the stage itself."""

    def __init__(self, name: str, **labels: str) -> None:
        self._labels = labels
        self._counter = Counter(
            name, "Requests answered with an error, by HTTP status.", [*labels, "status"], registry=None
        )
        for status in STATUSES:
            self._counter.labels(**labels, status=str(status))
        self.collect = self._counter.collect

    def count(self, status: int) -> None:
        """Count an answer if it is an error."""
        if status >= 400:
            self._counter.labels(**self._labels, status=str(status)).inc()
