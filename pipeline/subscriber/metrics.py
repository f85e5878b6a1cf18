"""A subscriber's metrics: read from the fan-out at each scrape, in the event loop's thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from aiohttp import web
from prometheus_client import Histogram, Metric

from pipeline.messages import Transport, Window
from pipeline.metrics.exposition import PATH, Refusals, collector_registry, counter, expose, gauge
from pipeline.metrics.windows import WindowMeters
from pipeline.subscriber.fanout import Fanout
from pipeline.tickets import FAULTS, TicketGate
from pipeline.tokens import Tokens

FANOUT_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# Exposed as 0 from the start; other values appear when they occur.
TRANSPORTS = get_args(Transport)
REASONS = ("left", "slow", "stuck", "replaced", "deleted", "shutdown")


Labelled = tuple[list[str], dict[tuple[str, ...], float]]
"""Label names, and a figure for each combination of their values."""


class StreamMeters:
    """Metrics of one subscriber, labelled with `cluster` and `subscriber`; `stage` is its name in `hops`."""

    def __init__(
        self, stage: str, cluster: str, subscriber: str, fanout: Fanout, tokens: Tokens, gate: TicketGate
    ) -> None:
        self.windows = WindowMeters(stage)
        self._labels = {"cluster": cluster, "subscriber": subscriber}
        self._fanout = fanout
        self._tokens = tokens
        self._gate = gate
        self._streams_max = 0
        self._refusals = Refusals("emostream_subscriber_requests_refused", **self._labels)
        self._took = Histogram(
            "emostream_subscriber_fanout_seconds",
            "Time to encode one window and write it to every stream that is up to date.",
            [*self._labels],
            registry=None,
            buckets=FANOUT_BUCKETS_S,
        )
        self._took.labels(**self._labels)

    def published(self, window: Window, sent_ns: int, took_s: float) -> None:
        """Count a window that was published to the streams; publishing took `took_s`."""
        self.windows.passed(window, sent_ns)
        self._took.labels(**self._labels).observe(took_s)

    def attach(self, app: web.Application, streams_max: int) -> None:
        """Add `GET /metrics` to `app`, and count the requests it refuses; it accepts up to `streams_max` streams."""
        self._streams_max = streams_max
        collectors = collector_registry(self)

        async def metrics(request: web.Request) -> web.Response:
            body, content_type = expose(collectors, request.headers.get("Accept", ""))
            return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

        async def count_refusal(_request: web.Request, response: web.StreamResponse) -> None:
            self._refusals.count(response.status)

        app.router.add_get(PATH, metrics)
        # A signal, not a middleware: a middleware would stay on the stack of every stream.
        app.on_response_prepare.append(count_refusal)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        fanout, total, by = self._fanout, self._total, self._by
        for family in (self.windows, self._took, self._refusals):
            yield from family.collect()
        # A stream that was opened, is not open and was not ended or cut off: its client left.
        ended = fanout.ended + fanout.cut
        ended["left"] = fanout.opened.total() - len(fanout) - ended.total()
        name = "emostream_subscriber_{}".format
        limit = "Most streams open at once; more are refused with 503."
        tickets = "Tickets refused; used: before, client and subscriber: another's."
        yield gauge(name("streams"), "Open streams.", *by("transport", TRANSPORTS, fanout.transports()))
        yield gauge(name("streams_limit"), limit, *total(self._streams_max))
        yield counter(name("streams_opened"), "Streams opened.", *by("transport", TRANSPORTS, fanout.opened))
        yield counter(name("streams_ended"), "Streams ended; slow and stuck: cut off.", *by("reason", REASONS, ended))
        yield counter(name("windows_sent"), "Windows written, counted once per stream.", *total(fanout.sent))
        yield counter(name("resets"), "Clients that missed windows which are no longer kept.", *total(fanout.resets))
        yield counter(name("tickets_refused"), tickets, *by("reason", FAULTS, self._gate.refused))
        yield gauge(name("ring_windows"), "Windows kept for clients that resume.", *total(fanout.kept))
        yield gauge(name("clients"), "Clients registered at any subscriber.", *total(len(self._tokens)))

    def _total(self, figure: int) -> Labelled:
        return list(self._labels), {tuple(self._labels.values()): figure}

    def _by(self, label: str, known: Iterable[str], counts: Mapping[str, int]) -> Labelled:
        own = tuple(self._labels.values())
        return [*self._labels, label], {(*own, key): counts.get(key, 0) for key in dict.fromkeys((*known, *counts))}
