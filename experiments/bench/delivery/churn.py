"""How other clients that come and go affect steady ones: the delivery benchmark's third measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import psutil

from experiments.analysis.latency import rank_quantile
from experiments.bench.delivery import audit
from experiments.bench.delivery.audit import Received, Seconds
from experiments.bench.delivery.chain import Meter, Stages
from experiments.bench.delivery.crowd import Crowd
from experiments.bench.delivery.feed import Feed
from experiments.bench.delivery.sizes import SETTLE_S, WARM_UP, Sizes

PACE_S = 0.25


@dataclass(frozen=True)
class Phase:
    """The windows of a period, and the CPU time that the host took from this machine during it."""

    windows: range
    stolen_s: float


def churn(stages: Stages, feed: Feed, sizes: Sizes) -> dict[str, Any]:
    """Let clients come and go beside steady ones, in rounds between quiet phases; return the steady ones' latency.

    The number of other clients is the same in the quiet phases: only the coming and going differs.
    """
    count = round(sizes.round_s / PACE_S)
    moved: Counter[str] = Counter()
    cores: list[dict[str, float]] = []
    busy: list[Phase] = []
    with Crowd(stages.registry) as crowd, Crowd(stages.registry) as others:
        for one, many in ((crowd, sizes.steady), (others, sizes.others)):
            one.ask("register", many, "1", feed.epoch)
            one.ask("open", range(many), sizes.rate_per_s)

        def come_and_go() -> Phase:
            others.start("churn", sizes.churn_per_s, sizes.round_s, "1", feed.epoch)
            meter = Meter({**stages.pids(), "steady clients": crowd.pid, "others": others.pid})
            phase = publish(feed, count)
            cores.append(meter.cores())
            moved.update(others.result())
            feed.publish(WARM_UP, PACE_S)
            return phase

        # Not measured: in the first minute Kafka's compiler alone takes half a core, and all code is cold.
        come_and_go()
        moved.clear()
        cores.clear()
        quiet = [publish(feed, count)]
        for _ in range(sizes.rounds):
            busy.append(come_and_go())
            quiet.append(publish(feed, count))
        crowd.ask("settle", quiet[-1].windows[-1], SETTLE_S)
        steady, failures = crowd.ask("results")
        movers, failures_of_others = others.ask("results")
    stages.await_clients(0)
    return {
        "steady": sizes.steady,
        "others": sizes.others,
        "changes_per_s": sizes.churn_per_s,
        "round_s": sizes.round_s,
        "pace_s": PACE_S,
        **compare(steady, feed.sent_ns, quiet, busy),
        **audit.tally(steady, feed.sent_ns, quiet[-1].windows[-1])._asdict(),
        "failures": failures,
        "comers": {
            **moved,
            "first_byte_from_registering": audit.quantiles(audit.first_bytes_s(movers[-moved["came"] :])[0]),
            **audit.tally(movers, feed.sent_ns, None)._asdict(),
            "failures": failures_of_others,
        },
        "cores_used": {name: round(median(each[name] for each in cores), 3) for name in cores[0]},
    }


def publish(feed: Feed, count: int) -> Phase:
    """Publish `count` windows at the pace."""
    before_s = stolen_s()
    return Phase(feed.publish(count, PACE_S), stolen_s() - before_s)


def stolen_s() -> float:
    """Return the CPU time that the host has taken from this machine since it started, seconds; 0 if unknown."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def compare(
    steady: Sequence[Received], sent_ns: Sequence[int], quiet: Sequence[Phase], busy: Sequence[Phase]
) -> dict[str, Any]:
    """Compare the latency in each busy phase with that in the quiet ones before and after it; `quiet` is one longer.

    `p99_ratio` is the median over these rounds: a burst of other work on the host falls into one phase, quiet or
    not, and decides that phase's p99. `p99_ratio_of_all` is that of all busy phases together by all quiet ones.
    """
    calm, stirred = ([audit.pairs_s(steady, sent_ns, phase.windows)[1] for phase in phases] for phases in (quiet, busy))
    rounds = [
        (p99(latency_s), p99(np.concatenate(around))) for latency_s, around in zip(stirred, pairwise(calm), strict=True)
    ]
    return {
        "p99_ratio": audit.figure(median(with_it / without for with_it, without in rounds), 3),
        "p99_ratio_of_all": audit.figure(p99(np.concatenate(stirred)) / p99(np.concatenate(calm)), 3),
        "rounds": [
            {
                "p99_ratio": audit.figure(with_it / without, 3),
                "p99_s": audit.figure(with_it),
                "quiet_p99_s": audit.figure(without),
            }
            for with_it, without in rounds
        ],
        "quiet": summary(calm, quiet),
        "churn": summary(stirred, busy),
    }


def p99(latency_s: Seconds) -> float:
    """Return the 99th percentile, seconds."""
    return rank_quantile(latency_s, 0.99)


def summary(latency_s: Sequence[Seconds], phases: Sequence[Phase]) -> dict[str, Any]:
    """Return the figures of these phases together; `stolen_s` is the CPU time the host took during them."""
    return {
        "windows": sum(len(phase.windows) for phase in phases),
        **audit.quantiles(np.concatenate(latency_s)),
        "stolen_s": round(sum(phase.stolen_s for phase in phases), 2),
    }
