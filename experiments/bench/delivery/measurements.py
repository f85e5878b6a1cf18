"""The benchmark of the last hop: thousands of clients, clients that come and go, and a subscriber that is killed.

Kafka, the registry, the subscribers and the clients share one machine. The benchmark writes windows to the feed of a
cluster itself, so that only delivery is measured; everything after the feed is the chain as it ships. Each
measurement connects a crowd of its own and leaves no client connected.
"""

from __future__ import annotations

import math
import operator
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.bench.delivery import audit
from experiments.bench.delivery.audit import Received
from experiments.bench.delivery.chain import Meter, Stages, cpu_s, rss_mb, started
from experiments.bench.delivery.churn import churn
from experiments.bench.delivery.crowd import Crowd
from experiments.bench.delivery.feed import Feed, feeding
from experiments.bench.delivery.sizes import SETTLE_S, WARM_UP, Sizes
from experiments.machine import machine_lock
from experiments.progress import Progress
from pipeline.subscriber.app import SWEEP_S

PAIR = ("1/1", "1/2")
# The fan-out's pace: this many messages per second, but at least this long from window to window.
MESSAGES_PER_S = 20_000
PACE_LEAST_S = 0.02
IDLE_S = 3.0
KILL_PACE_S = 0.5
BEFORE_KILL = 6
AFTER_KILL = 4
BACK_S = 20.0
# What a part takes besides its timed windows: clients that register, connect and leave.
PART_S = 25.0

PROMISES: tuple[tuple[str, Callable[[Any, Any], Any], float], ...] = (
    ("first_byte_p99_s", operator.le, 2.0),
    ("publish_to_last_p99_s", operator.le, 0.4),
    ("kb_per_connection", operator.le, 30.0),
    ("lost", operator.eq, 0),
    ("duplicated", operator.eq, 0),
    ("reordered", operator.eq, 0),
    ("messages_per_cpu_s", operator.ge, 30_000),
    ("churn_p99_ratio", operator.lt, 1.2),
    ("churn_missed", operator.eq, 0),
    ("failover_s", operator.le, 8.0),
    ("failover_missed", operator.eq, 0),
)
HOW = {
    "clients": "SSE over loopback, in processes of their own at ordinary priority on the same cores as the servers: "
    "the servers lack the CPU time that they use (cores_used)",
    "first_byte": "from when the client was due to connect (open loop), by way of the registry's 307 on a pool of "
    "kept-alive connections, to the first byte of the subscriber's 200; windows flow meanwhile",
    "publish_to_last": "from just before the benchmark hands the window to Kafka until its last byte is read by the "
    "last client",
    "kb_per_connection": "growth of both subscribers' resident memory from before the first registration to after the "
    "last window, by clients; it excludes the kernel's memory for sockets",
    "lost, duplicated, reordered": "of fan_in, by the id of every event at every client since it connected; "
    "the other parts have their own",
    "messages_per_cpu_s": "of the level with the most clients: events received, by the user and system time of the one "
    "subscriber process meanwhile, idle work included",
    "churn_p99_ratio": "p99 over all (window, steady client) pairs of a round in which others come and go, divided by "
    "that of the quiet phases before and after it, in which as many others stay; the median over the rounds, as "
    "the host takes CPU time in bursts (stolen_s) that make the p99 of the phase they fall into. p99_ratio_of_all: all "
    "rounds together. The first round only warms up",
    "failover_s": "from SIGKILL until the last of its clients has a window, missed or new, on a stream from the other "
    "subscriber; a client tries again a second after each failure, as a browser does",
}


def delivery(sizes: Sizes | None = None) -> dict[str, Any]:
    """Measure the last hop; return the promised figures, whether each promise is kept, and every detail."""
    sizes = sizes or Sizes()
    begun_s = time.monotonic()
    with (
        machine_lock.alone("The delivery benchmark"),
        tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch,
        started(Path(scratch)) as stages,
        feeding(stages.settings, "1") as feed,
        feeding(stages.settings, "2") as single,
        Progress(sum(expected_s := _expected_s(sizes))) as progress,
    ):
        progress.begin(f"{sizes.clients} clients connect and watch", expected_s[0])
        stages.start_subscribers(*PAIR)
        of_fan_in = fan_in(stages, feed, sizes)
        progress.begin("one subscriber gets more and more clients", expected_s[1])
        of_fan_out = fan_out(stages, single, sizes)
        progress.begin("clients come and go", expected_s[2])
        of_churn = churn(stages, feed, sizes)
        progress.begin("a subscriber is killed", expected_s[3])
        of_failover = failover(stages, feed, sizes)
    return {
        **summary(of_fan_in, of_fan_out, of_churn, of_failover),
        "fan_in": of_fan_in,
        "fan_out": of_fan_out,
        "churn": of_churn,
        "failover": of_failover,
        "how": HOW,
        "took_s": round(time.monotonic() - begun_s),
    }


def _expected_s(sizes: Sizes) -> tuple[float, float, float, float]:
    """Return how long each of the four parts should take, in seconds."""
    return (
        sizes.clients / sizes.rate_per_s + sizes.windows * sizes.pace_s + PART_S,
        len(sizes.levels) * sizes.level_s + PART_S,
        2 * (sizes.rounds + 1) * sizes.round_s + PART_S,
        BACK_S + PART_S,
    )


def summary(
    fan_in: dict[str, Any], fan_out: dict[str, Any], churn: dict[str, Any], failover: dict[str, Any]
) -> dict[str, Any]:
    """Return the promised figures, and under `kept` whether each keeps its promise."""
    figures = {
        "clients": fan_in["clients"],
        "first_byte_p99_s": fan_in["first_byte"]["p99_s"],
        "publish_to_last_p99_s": fan_in["publish_to_last"]["p99_s"],
        "kb_per_connection": fan_in["kb_per_connection"],
        **{name: fan_in[name] for name in ("lost", "duplicated", "reordered")},
        "messages_per_cpu_s": fan_out["levels"][-1]["messages_per_cpu_s"],
        "churn_p99_ratio": churn["p99_ratio"],
        "churn_missed": churn["lost"],
        "failover_s": failover["window_elsewhere"]["max_s"],
        "failover_missed": failover["lost"],
    }
    kept = {name: figures[name] is not None and bool(holds(figures[name], bound)) for name, holds, bound in PROMISES}
    return {**figures, "kept": kept}


def fan_in(stages: Stages, feed: Feed, sizes: Sizes) -> dict[str, Any]:
    """Connect all clients to two subscribers at a fixed rate while windows flow, then time the windows."""
    processes = [stages.subscriber(name) for name in PAIR]
    before_mb, files_before = rss_mb(processes), sum(process.num_fds() for process in processes)
    with Crowd(stages.registry) as crowd:
        homes = crowd.ask("register", sizes.clients, "1", feed.epoch)
        crowd.start("open", range(sizes.clients), sizes.rate_per_s)
        feed.publish(math.ceil(sizes.clients / sizes.rate_per_s / sizes.pace_s) + 1, sizes.pace_s)
        achieved_per_s = crowd.result()
        meter = Meter({**stages.pids(), "clients": crowd.pid})
        windows = feed.publish(sizes.windows, sizes.pace_s)
        cores = meter.cores()
        crowd.ask("settle", windows[-1], SETTLE_S)
        after_mb = rss_mb(processes)
        received, failures = crowd.ask("results")
    stages.await_clients(0)
    # Subscribers check every SWEEP_S whether they can return memory.
    time.sleep(2 * SWEEP_S)
    grown_mb = after_mb - before_mb
    from_due_s, from_redirect_s = audit.first_bytes_s(received)
    return {
        "clients": sizes.clients,
        "clients_per_subscriber": {name: homes.count(name) for name in PAIR},
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
        "failures": failures,
        "cores_used": cores,
    }


def fan_out(stages: Stages, feed: Feed, sizes: Sizes) -> dict[str, Any]:
    """Give one subscriber more and more clients; count the messages per second of its CPU time at each level."""
    name = "2/1"
    stages.start_subscribers(name)
    subscriber = stages.subscriber(name)
    levels: list[tuple[int, range, float, float, float]] = []
    with Crowd(stages.registry) as crowd:
        spent_s = cpu_s(subscriber.pid)
        time.sleep(IDLE_S)
        idle_cores = (cpu_s(subscriber.pid) - spent_s) / IDLE_S
        connected = 0
        for level in sizes.levels:
            # Not all at once: a registration that is not opened within a minute goes.
            crowd.ask("register", level - connected, "2", feed.epoch)
            crowd.ask("open", range(connected, level), sizes.rate_per_s)
            connected = level
            pace_s = max(level / MESSAGES_PER_S, PACE_LEAST_S)
            crowd.ask("settle", feed.publish(WARM_UP, pace_s)[-1], SETTLE_S)
            spent_s, begun_s = cpu_s(subscriber.pid), time.monotonic()
            windows = feed.publish(max(round(sizes.level_s / pace_s), 1), pace_s)
            crowd.ask("settle", windows[-1], SETTLE_S)
            levels.append((level, windows, pace_s, cpu_s(subscriber.pid) - spent_s, time.monotonic() - begun_s))
        received, failures = crowd.ask("results")
    stages.await_clients(0)
    stages.stop(name)
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
        "failures": failures,
    }


def failover(stages: Stages, feed: Feed, sizes: Sizes) -> dict[str, Any]:
    """Kill a subscriber with SIGKILL, right after a window was sent; time until all its clients are served again."""
    victim = PAIR[1]
    with Crowd(stages.registry) as crowd:
        crowd.ask("register", len(PAIR) * sizes.killed, "1", feed.epoch)
        crowd.ask("open", range(len(PAIR) * sizes.killed), sizes.rate_per_s)
        address = stages.address(victim)
        # The last window is under way when the subscriber dies.
        crowd.ask("settle", feed.publish(BEFORE_KILL, KILL_PACE_S)[-1], SETTLE_S)
        feed.publish(1, 0)
        killed_ns = time.time_ns()
        stages.kill(victim)
        crowd.start("elsewhere", address, BACK_S)
        meanwhile = feed.publish(math.ceil(BACK_S / KILL_PACE_S), KILL_PACE_S, crowd.has_answered)
        not_back = crowd.result()
        windows = feed.publish(AFTER_KILL, KILL_PACE_S)
        crowd.ask("settle", windows[-1], SETTLE_S)
        received, failures = crowd.ask("results")
    stages.await_clients(0)
    return {
        **_moved([one for one in received if one.joins[0].address == address], feed.sent_ns, address, killed_ns),
        "not_back": not_back,
        "windows_meanwhile": len(meanwhile),
        "the_others": audit.tally(
            [one for one in received if one.joins[0].address != address], feed.sent_ns, windows[-1]
        )._asdict(),
        "pace_s": KILL_PACE_S,
        "failures": failures,
    }


def _moved(killed: Sequence[Received], sent_ns: Sequence[int], address: str, killed_ns: int) -> dict[str, Any]:
    opened_s, served_s = audit.back_s(killed, address, killed_ns)
    return {
        "killed_clients": len(killed),
        "stream_elsewhere": audit.quantiles(opened_s),
        "window_elsewhere": audit.quantiles(served_s),
        **audit.tally(killed, sent_ns, len(sent_ns) - 1)._asdict(),
    }
