"""The measurements of the delivery benchmark; each connects a crowd of its own and leaves nobody behind.

That of coming and going is `experiments.bench.delivery.churn`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.bench.delivery import audit
from experiments.bench.delivery.chain import Meter, Stages, cpu_s, rss_mb
from experiments.bench.delivery.client import Received
from experiments.bench.delivery.crowd import Crowd
from experiments.bench.delivery.feed import Feed
from pipeline.subscriber.app import SWEEP_S

PAIR = ("1/1", "1/2")
# How long after its window was sent the last client may have it before it counts as lost.
SETTLE_S = 15.0
# Windows that nobody times, before those that are: code and caches warm up.
WARM_UP = 10
# The fan-out's pace: so many messages a second, but no window sooner than this after the one before.
MESSAGES_PER_S = 20_000
PACE_LEAST_S = 0.02
IDLE_S = 3.0
KILL_PACE_S = 0.5
BEFORE_KILL = 6
AFTER_KILL = 4
BACK_S = 20.0


@dataclass(frozen=True)
class Sizes:
    """How large each measurement is; the defaults are what the project promises to hold."""

    clients: int = 5_000
    rate_per_s: float = 500.0
    windows: int = 50
    pace_s: float = 1.0
    levels: tuple[int, ...] = (100, 500, 1_000, 2_500, 5_000)
    level_s: float = 8.0
    steady: int = 1_000
    others: int = 200
    churn_per_s: float = 100.0
    # Two minutes of coming and going in all, each round between two quiet phases of the same length.
    rounds: int = 6
    round_s: float = 20.0
    # At least a thousand at the one that dies: the two differ by some twenty.
    killed: int = 1_100


def fan_in(stages: Stages, feed: Feed, sizes: Sizes) -> dict[str, Any]:
    """Connect everyone to two subscribers at a fixed rate, windows flowing, then time the windows."""
    processes = [stages.subscriber(place) for place in PAIR]
    before_mb, files_before = rss_mb(processes), sum(process.num_fds() for process in processes)
    with Crowd(stages.registry) as crowd:
        homes = crowd.ask("register", sizes.clients, "1", feed.epoch)
        crowd.tell("open", range(sizes.clients), sizes.rate_per_s)
        feed.publish(math.ceil(sizes.clients / sizes.rate_per_s / sizes.pace_s) + 1, sizes.pace_s)
        achieved_per_s = crowd.hear()
        meter = Meter({**stages.pids(), "clients": crowd.pid})
        windows = feed.publish(sizes.windows, sizes.pace_s)
        cores = meter.cores()
        crowd.ask("settle", windows[-1], SETTLE_S)
        after_mb = rss_mb(processes)
        received, troubles = crowd.ask("results")
    stages.await_clients(0)
    # They look every SWEEP_S whether there is memory to give back.
    time.sleep(2 * SWEEP_S)
    grown_mb = after_mb - before_mb
    from_due_s, from_redirect_s = audit.first_bytes_s(received)
    return {
        "clients": sizes.clients,
        "clients_a_subscriber": {place: homes.count(place) for place in PAIR},
        "windows": len(windows),
        "window_bytes": feed.window_bytes(),
        "pace_s": sizes.pace_s,
        "connections_per_s": round(achieved_per_s, 1),
        "first_byte": audit.quantiles(from_due_s),
        "first_byte_from_redirect": audit.quantiles(from_redirect_s),
        "publish_to_last": audit.quantiles(audit.last_s(received, feed.sent_ns, windows)),
        "publish_to_each": audit.quantiles(audit.pairs_s(received, feed.sent_ns, windows)[1]),
        "kb_per_connection": round(grown_mb * 1024 / sizes.clients, 1),
        "rss_before_mb": round(before_mb, 1),
        "rss_after_mb": round(after_mb, 1),
        "rss_when_they_left_mb": round(rss_mb(processes), 1),
        "files_left_open": sum(process.num_fds() for process in processes) - files_before,
        **audit.tally(received, feed.sent_ns, windows[-1])._asdict(),
        "troubles": troubles,
        "cores_used": cores,
    }


def fan_out(stages: Stages, feed: Feed, sizes: Sizes) -> dict[str, Any]:
    """Give one subscriber more and more clients; count the messages a second of its CPU time at each level."""
    place = "2/1"
    stages.start_subscribers(place)
    subscriber = stages.subscriber(place)
    levels: list[tuple[int, range, float, float, float]] = []
    with Crowd(stages.registry) as crowd:
        crowd.ask("register", sizes.levels[-1], "2", feed.epoch)
        spent_s = cpu_s(subscriber.pid)
        time.sleep(IDLE_S)
        idle_cores = (cpu_s(subscriber.pid) - spent_s) / IDLE_S
        here = 0
        for level in sizes.levels:
            crowd.ask("open", range(here, level), sizes.rate_per_s)
            here = level
            pace_s = max(level / MESSAGES_PER_S, PACE_LEAST_S)
            crowd.ask("settle", feed.publish(WARM_UP, pace_s)[-1], SETTLE_S)
            spent_s, begun_s = cpu_s(subscriber.pid), time.monotonic()
            windows = feed.publish(max(round(sizes.level_s / pace_s), 1), pace_s)
            crowd.ask("settle", windows[-1], SETTLE_S)
            levels.append((level, windows, pace_s, cpu_s(subscriber.pid) - spent_s, time.monotonic() - begun_s))
        received, troubles = crowd.ask("results")
    stages.await_clients(0)
    stages.stop(place)
    rows = []
    for level, windows, pace_s, spent_s, elapsed_s in levels:
        latency_s = audit.pairs_s(received[:level], feed.sent_ns, windows)[1]
        rows.append(
            {
                "clients": level,
                "messages_per_cpu_s": round(len(latency_s) / max(spent_s, 0.001)),
                "messages": len(latency_s),
                "windows": len(windows),
                "pace_s": pace_s,
                "cores_used": round(spent_s / elapsed_s, 3),
                "publish_to_each": audit.quantiles(latency_s),
            }
        )
    return {
        "levels": rows,
        "idle_cores_used": round(idle_cores, 4),
        **audit.tally(received, feed.sent_ns, len(feed.sent_ns) - 1)._asdict(),
        "troubles": troubles,
    }


def failover(stages: Stages, feed: Feed, sizes: Sizes) -> dict[str, Any]:
    """Kill a subscriber with SIGKILL, right after a window was sent; time until all its clients are served again."""
    victim = PAIR[1]
    with Crowd(stages.registry) as crowd:
        crowd.ask("register", len(PAIR) * sizes.killed, "1", feed.epoch)
        crowd.ask("open", range(len(PAIR) * sizes.killed), sizes.rate_per_s)
        place = stages.address(victim)
        # The last one is sent and on its way when the subscriber dies.
        crowd.ask("settle", feed.publish(BEFORE_KILL, KILL_PACE_S)[-1], SETTLE_S)
        feed.publish(1, 0)
        killed_ns = time.time_ns()
        stages.kill(victim)
        crowd.tell("elsewhere", place, BACK_S)
        away = feed.publish(math.ceil(BACK_S / KILL_PACE_S), KILL_PACE_S, crowd.has_answered)
        not_back = crowd.hear()
        windows = feed.publish(AFTER_KILL, KILL_PACE_S)
        crowd.ask("settle", windows[-1], SETTLE_S)
        received, troubles = crowd.ask("results")
    stages.await_clients(0)
    return {
        **_moved([one for one in received if one.joins[0].place == place], feed.sent_ns, place, killed_ns),
        "not_back": not_back,
        "windows_meanwhile": len(away),
        "the_others": audit.tally(
            [one for one in received if one.joins[0].place != place], feed.sent_ns, windows[-1]
        )._asdict(),
        "pace_s": KILL_PACE_S,
        "troubles": troubles,
    }


def _moved(killed: Sequence[Received], sent_ns: Sequence[int], place: str, killed_ns: int) -> dict[str, Any]:
    opened_s, served_s = audit.back_s(killed, place, killed_ns)
    return {
        "killed_clients": len(killed),
        "stream_elsewhere": audit.quantiles(opened_s),
        "window_elsewhere": audit.quantiles(served_s),
        **audit.tally(killed, sent_ns, len(sent_ns) - 1)._asdict(),
    }
