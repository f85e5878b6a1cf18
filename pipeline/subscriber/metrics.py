"""What a subscriber tells of itself: read off the fan-out when it is asked, in the event loop's thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from aiohttp import web
from prometheus_client import Histogram, Metric

from pipeline.messages import Transport, Window
from pipeline.metrics.exposition import PATH, Refusals, collector_registry, counter, expose, gauge
from pipeline.metrics.windows import WindowMeters
from pipeline.subscriber.fanout import Fanout
from pipeline.tokens import Tokens

FANOUT_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# What is here from the beginning, at nought; others come as they occur.
TRANSPORTS = get_args(Transport)
REASONS = ("left", "slow", "stuck", "replaced", "deleted", "shutdown")


Labelled = tuple[list[str], dict[tuple[str, ...], float]]
"""Names of labels, and a figure for each combination of their values."""


class StreamMeters:
    """Figures of the subscriber `stage`, its name in `hops`; its place, cluster and subscriber, is their labels."""

    def __init__(self, stage: str, cluster: str, subscriber: str, fanout: Fanout, tokens: Tokens) -> None:
        self.windows = WindowMeters(stage)
        self._place = {"cluster": cluster, "subscriber": subscriber}
        self._fanout = fanout
        self._tokens = tokens
        self._streams_max = 0
        self._refusals = Refusals("emostream_subscriber_requests_refused", **self._place)
        self._took = Histogram(
            "emostream_subscriber_fanout_seconds",
            "What one window costs: encoding it and writing it to every stream that is up to date.",
            [*self._place],
            registry=None,
            buckets=FANOUT_BUCKETS_S,
        )
        self._took.labels(**self._place)

    def published(self, window: Window, sent_ns: int, took_s: float) -> None:
        """Count a window that went to the streams."""
        self.windows.passed(window, sent_ns)
        self._took.labels(**self._place).observe(took_s)

    def attach(self, app: web.Application, streams_max: int) -> None:
        """Have `app` answer `GET /metrics`, and count what it refuses; it takes `streams_max` streams."""
        self._streams_max = streams_max
        found = collector_registry(self)

        async def metrics(request: web.Request) -> web.Response:
            body, content_type = expose(found, request.headers.get("Accept", ""))
            return web.Response(body=body, headers={"Content-Type": content_type})

        async def answered(_request: web.Request, response: web.StreamResponse) -> None:
            self._refusals.count(response.status)

        app.router.add_get(PATH, metrics)
        # A signal and no middleware: that would stay on every stream's stack.
        app.on_response_prepare.append(answered)

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        fanout, here, by = self._fanout, self._here, self._by
        for family in (self.windows, self._took, self._refusals):
            yield from family.collect()
        # Whoever came and is neither here nor was sent away has left.
        ended = fanout.ended + fanout.cut
        ended["left"] = fanout.opened.total() - len(fanout) - ended.total()
        name = "emostream_subscriber_{}".format
        yield gauge(name("streams"), "Streams open.", *by("transport", TRANSPORTS, fanout.transports()))
        yield gauge(name("streams_limit"), "Streams taken; beyond them the answer is 503.", *here(self._streams_max))
        yield counter(name("streams_opened"), "Streams begun.", *by("transport", TRANSPORTS, fanout.opened))
        yield counter(name("streams_ended"), "Streams over; slow and stuck: cut off.", *by("reason", REASONS, ended))
        yield counter(name("windows_sent"), "Windows written to streams, once for each stream.", *here(fanout.sent))
        yield counter(name("resets"), "Clients told that windows they missed are gone.", *here(fanout.resets))
        yield gauge(name("ring_windows"), "Windows kept for those who resume.", *here(fanout.kept))
        yield gauge(name("clients"), "Clients registered anywhere: their tokens are known.", *here(len(self._tokens)))

    def _here(self, figure: int) -> Labelled:
        return list(self._place), {tuple(self._place.values()): figure}

    def _by(self, label: str, known: Iterable[str], counts: Mapping[str, int]) -> Labelled:
        place = tuple(self._place.values())
        return [*self._place, label], {(*place, key): counts.get(key, 0) for key in dict.fromkeys((*known, *counts))}
