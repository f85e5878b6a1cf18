"""Whether a chain that was just started carries a window from end to end."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

from pipeline import cluster_routes
from pipeline.bus.base import Bus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.messages import Announcement, Window, decode_announcement, decode_window
from pipeline.settings import Settings

POLL_S = 0.1


def await_first_window(
    bus: Bus, settings: Settings, health_urls: Mapping[str, str], stop: threading.Event, timeout_s: float
) -> list[Announcement]:
    """Send a probe through the chain; return every subscriber's announcement once each has had its window.

    The probe is a null record: it carries no reaction and counts nothing, but Spark runs a micro-batch for it.
    `health_urls` maps a stage to what must answer 200. Raises EmoStreamError naming what is still missing after
    `timeout_s`; returns [] when `stop` is set first.
    """
    names = topics(settings)
    bus.ensure(names.events, names.aggregates, names.subscribers)
    # A cluster whose publisher is slow to start would join behind the probe's window, and wait for ever.
    cluster_routes.join(bus, names, (str(cluster) for cluster in range(1, settings.clusters + 1)))
    windows = bus.reader(names.aggregates.name, bus.ends(names.aggregates.name))
    announcements = bus.reader(names.subscribers.name, bus.ends(names.subscribers.name))
    writer = bus.writer()
    writer.send(names.events.name, None, key=b"probe")
    writer.flush()
    expected = {(str(c), str(s)) for c in range(1, settings.clusters + 1) for s in range(1, settings.subscribers + 1)}
    latest: dict[tuple[str, str], Announcement] = {}
    first: Window | None = None
    unhealthy = dict(health_urls)
    deadline_s = time.monotonic() + timeout_s
    try:
        while not stop.is_set():
            if first is None:
                first = next((decode_window(record.value) for record in windows.poll(POLL_S)), None)
            for record in announcements.poll(POLL_S):
                if record.value is not None:
                    said = decode_announcement(record.value)
                    latest[said.cluster, said.subscriber] = said
            unhealthy = {name: url for name, url in unhealthy.items() if not _answers(url)}
            waiting = sorted(f"subscriber {c}/{s}" for c, s in expected if not _has(latest.get((c, s)), first))
            if first is not None and not waiting and not unhealthy:
                return [latest[place] for place in sorted(expected)]
            if time.monotonic() > deadline_s:
                missing = [*(["Spark's first window"] if first is None else waiting), *unhealthy]
                raise EmoStreamError(
                    f"not ready after {timeout_s:g} s, still missing: {', '.join(missing)}; "
                    f"see the logs in {settings.run_dir}/logs, or allow more with --ready-timeout-s"
                )
        return []
    finally:
        writer.close()
        windows.close()
        announcements.close()


def _has(said: Announcement | None, window: Window | None) -> bool:
    if said is None or window is None or said.last_event_id is None:
        return False
    epoch, _, number = said.last_event_id.rpartition(":")
    return epoch == window.epoch and int(number) >= window.window


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
