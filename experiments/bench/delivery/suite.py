"""The benchmark of the last hop: thousands of clients, coming and going, and a subscriber that dies.

Kafka, the registry, the subscribers and the clients share one machine. The benchmark writes windows to the feed of a
cluster itself, so that nothing but delivery is measured; everything from there on is the chain as it ships.
"""

from __future__ import annotations

import operator
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.bench.delivery import churn as delivery_churn
from experiments.bench.delivery import measurements as parts
from experiments.bench.delivery.chain import started
from experiments.bench.delivery.feed import feeding
from experiments.run import machine_lock

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
    "what they use (cores_used) the servers lack",
    "first_byte": "from when the client was due to connect (open loop), by way of the registry's 307 on a pool of "
    "kept-alive connections, to the first byte of the subscriber's 200; windows flow meanwhile",
    "publish_to_last": "from just before the benchmark hands the window to Kafka until its last byte is read by the "
    "last client",
    "kb_per_connection": "growth of both subscribers' resident memory from before the first registration to after the "
    "last window, by clients; what the kernel keeps for sockets is not in it",
    "lost, duplicated, reordered": "of fan_in, by the id of every event at every client, from its connecting on; "
    "the other parts give their own",
    "messages_per_cpu_s": "of the level with the most clients: events received, by the user and system time of the one "
    "subscriber process meanwhile, idle work included",
    "churn_p99_ratio": "p99 over all (window, steady client) pairs of a round in which others come and go, by that of "
    "the quiet phases before and after it together, in which as many others just stay; the median over the rounds, as "
    "the host takes CPU time in bursts (stolen_s) that make the p99 of the phase they fall into. p99_ratio_of_all: all "
    "rounds together. A first round only warms up",
    "failover_s": "from SIGKILL until the last of its clients has a window, missed or new, on a stream from the other "
    "subscriber; a client tries again a second after each failure, as a browser does",
}


def delivery(sizes: parts.Sizes | None = None) -> dict[str, Any]:
    """Measure the last hop; return what the project promises of it, each promise kept or not, and every detail."""
    sizes = sizes or parts.Sizes()
    begun_s = time.monotonic()
    with (
        machine_lock.alone("The benchmark of the delivery"),
        tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch,
        started(Path(scratch)) as stages,
        feeding(stages.settings, "1") as feed,
        feeding(stages.settings, "2") as single,
    ):
        stages.start_subscribers(*parts.PAIR)
        fan_in = parts.fan_in(stages, feed, sizes)
        fan_out = parts.fan_out(stages, single, sizes)
        churn = delivery_churn.churn(stages, feed, sizes)
        failover = parts.failover(stages, feed, sizes)
    return {
        **summary(fan_in, fan_out, churn, failover),
        "fan_in": fan_in,
        "fan_out": fan_out,
        "churn": churn,
        "failover": failover,
        "how": HOW,
        "took_s": round(time.monotonic() - begun_s),
    }


def summary(
    fan_in: dict[str, Any], fan_out: dict[str, Any], churn: dict[str, Any], failover: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures that something is promised of, and under `kept` whether each keeps its promise."""
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
