"""Waiting until a started chain has carried a first window from end to end."""

from __future__ import annotations

import threading
import time
import urllib.error
from collections.abc import Mapping

from pipeline import cluster_routes, direct_http
from pipeline.bus.base import Bus
from pipeline.bus.records import keyed, readable
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.messages import Announcement, Window, decode_announcement, decode_window
from pipeline.settings import Settings

POLL_S = 0.1


def await_first_window(
    bus: Bus, settings: Settings, health_urls: Mapping[str, str], stop: threading.Event, timeout_s: float
) -> list[Announcement]:
    """Send a probe through the chain; return every subscriber's announcement once each has sent the probe's window.

    The probe is a null record: it holds no reaction and adds to no count, but Spark runs a micro-batch for it.
    `health_urls` maps a stage to the URL that must answer 200. Raises EmoStreamError after `timeout_s`, naming the
    stages that are not ready; returns [] if `stop` is set first.
    """
    names = topics(settings)
    bus.ensure(names.events, names.aggregates, names.subscribers)
    # A cluster whose publisher starts slowly would otherwise join after the probe's window and never get it.
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
                first = next((window for _, window in readable(windows.poll(POLL_S), decode_window, "window")), None)
            for _, announcement in keyed(announcements.poll(POLL_S), decode_announcement, "announcement"):
                if announcement is not None:
                    latest[announcement.cluster, announcement.subscriber] = announcement
            unhealthy = {name: url for name, url in unhealthy.items() if not _answers(url)}
            waiting = sorted(f"subscriber {c}/{s}" for c, s in expected if not _has_sent(latest.get((c, s)), first))
            if first is not None and not waiting and not unhealthy:
                return [latest[subscriber] for subscriber in sorted(expected)]
            if time.monotonic() > deadline_s:
                missing = [*(["Spark's first window"] if first is None else waiting), *unhealthy]
                raise EmoStreamError(
                    f"the chain is not ready after {timeout_s:g} s, still missing: {', '.join(missing)}: "
                    f"see the logs in {settings.run_dir}/logs, or allow more time with --ready-timeout-s"
                )
        return []
    finally:
        writer.close()
        windows.close()
        announcements.close()


def _has_sent(announcement: Announcement | None, window: Window | None) -> bool:
    if announcement is None or window is None or announcement.last_event_id is None:
        return False
    epoch, _, number = announcement.last_event_id.rpartition(":")
    return epoch == window.epoch and int(number) >= window.window


def _answers(url: str) -> bool:
    try:
        with direct_http.get(url, timeout_s=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
