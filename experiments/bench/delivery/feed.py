"""The delivery benchmark's windows, written to a cluster's feed as its publisher does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from uuid import uuid4

from experiments.load.schedule import POPULAR_EMOJIS, popularity
from pipeline.bus.base import Bus
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.messages import Hop, TypeCount, Window, encode
from pipeline.settings import Settings

# A window of 6 s at 100 reactions per second: every popular emoji occurs in it.
REACTIONS = 600


def counted() -> list[TypeCount]:
    """Return the counts of REACTIONS reactions by popularity, with one representative per ten."""
    counts = [round(share * REACTIONS) for share in popularity("zipf", len(POPULAR_EMOJIS))]
    return [TypeCount(emoji, n, -(-n // 10)) for emoji, n in zip(POPULAR_EMOJIS, counts, strict=True)]


class Feed:
    """A cluster's feed, to which the benchmark writes windows as the cluster's publisher does.

    They are numbered from 0; `sent_ns[number]` is when a window was handed to Kafka, epoch ns.
    """

    def __init__(self, bus: Bus, settings: Settings, cluster: str) -> None:
        topic = topics(settings).feed(cluster)
        bus.ensure(topic)
        self._topic = topic.name
        self._writer = bus.writer()
        self._cluster = cluster
        self._types = counted()
        self.epoch = f"bench-{uuid4().hex}"
        self.sent_ns: list[int] = []

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def publish(self, count: int, pace_s: float, enough: Callable[[], bool] = lambda: False) -> range:
        """Write `count` windows, one every `pace_s`, until `enough` returns true; return their numbers.

        Each is in Kafka before the next is sent; if it takes longer than the pace, the next is late.
        """
        first = len(self.sent_ns)
        begun_s = time.monotonic()
        for index in range(1, count + 1):
            if enough():
                break
            self._write()
            # Wait after the last one as well, until the next window would be due.
            time.sleep(max(begun_s + index * pace_s - time.monotonic(), 0))
        return range(first, len(self.sent_ns))

    def window_bytes(self) -> int:
        """Return the size of one window in the feed."""
        return len(encode(self._window(1_000)))

    def _write(self) -> None:
        value = encode(self._window(len(self.sent_ns)))
        self.sent_ns.append(time.time_ns())
        self._writer.send(self._topic, value, self.epoch.encode())
        self._writer.flush()

    def _window(self, number: int) -> Window:
        now_ns = time.time_ns()
        hops = (
            Hop("main-publisher", number, now_ns, now_ns),
            Hop(f"cluster-publisher-{self._cluster}", number, now_ns, now_ns),
        )
        offsets = {f"emoji-events-{half}": (300 * number, 300 * number + 299) for half in range(2)}
        total = sum(one.count for one in self._types)
        return Window(self.epoch, number, now_ns, now_ns, offsets, total, self._types, cluster=self._cluster, hops=hops)


@contextmanager
def feeding(settings: Settings, cluster: str) -> Iterator[Feed]:
    """Yield the feed of a cluster; close its connections at the end."""
    with closing(KafkaBus(settings.kafka)) as bus, closing(Feed(bus, settings, cluster)) as feed:
        yield feed
