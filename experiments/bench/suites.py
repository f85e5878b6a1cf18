"""The benchmark suites: each starts its processes, takes minutes, prints and writes one JSON."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import uvloop

from experiments.analysis.latency import rank_quantile
from experiments.analysis.validity import SEND_DELAY_P99_MS
from experiments.bench.analysis import analysis
from experiments.bench.delivery.measurements import delivery
from experiments.bench.hammer import hammer
from experiments.bench.limits import limits
from experiments.bench.search import search
from experiments.bench.soak import soak
from experiments.bench.steady import steady
from experiments.bench.twin import twin
from experiments.load import invalid, slow
from experiments.load.http1 import get, post
from experiments.load.plan import plan_of
from experiments.load.schedule import POPULAR_EMOJIS, timestamp_of
from experiments.load.sender_processes import postponed, processes_for
from experiments.parameters import Parameters
from experiments.progress import Progress
from experiments.run import benchmark_file
from experiments.run.chain import clean_environment
from experiments.run.measure import measure
from experiments.units import NS_PER_MS
from pipeline import direct_http, lifecycle
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.messages import encode
from pipeline.settings import Settings, to_env

ROUNDS = 5
ROUND_S = 6.0
PAUSE_S = 1.0
# The start of Kafka and of ingest.
SERVERS_S = 10.0
CONNECTIONS = 100
SERVER_START_S = 30.0
# How long ingest takes to answer, alone and beside slow and silent connections.
ANSWERED_PER_S = 500
ANSWERED_S = 6
ANSWER_ROUNDS = 3

# The load generator: the first rate is the promised one; the others show its limit. The last is sent again as plain
# reactions, one per request.
LOAD_RATES_PER_S = (2_000, 4_000, 8_000, 12_000)
LOAD_S = 30
# Not measured, as in a run.
LOAD_WARM_UP_S = 5
LOAD_RUNG_S = 10
# The plan is written and read, and the processes start.
LOAD_START_S = 5


def run(suite: str, out: Path) -> None:
    """Run `suite`, one of SUITES; print its figures and write them to `out`/<suite>.json."""
    print(json.dumps(benchmark_file.write(out, suite, SUITES[suite]()), indent=1))


def chain() -> dict[str, Any]:
    """Measure the whole chain at 100 users, 100 reactions/s and 100 SSE clients."""
    with tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch:
        result = measure(Parameters(), Path(scratch))
    summary = result.analysis.summary
    names = (
        *("e2e_p50_s", "e2e_p99_s", "floor_p50_s", "floor_p99_s", "e2e_excess_p50_s", "e2e_excess_p99_s"),
        *("batch_p50_s", "batch_p95_s", "accepted", "counted", "oracle_cells", "oracle_equal"),
        *("lost", "duplicated", "deliveries_missing", "deliveries_duplicate", "valid", "passed"),
    )
    return {**{name: summary[name] for name in names}, "ready_s": result.ready_s}


def ingest() -> dict[str, Any]:
    """Compare the rate that one ingest worker accepts with that of a hello route on the same server.

    The two alternate within one run; the ratio is the median of the rounds' ratios. Then reactions are sent at a fixed
    rate, alone and beside slow and silent connections in turn: how long after its planned moment each was answered.
    """
    answering_s = 2 * ANSWER_ROUNDS * (ANSWERED_S + LOAD_WARM_UP_S + LOAD_START_S)
    with (
        Progress(SERVERS_S + ROUNDS * (PAUSE_S + 2 * ROUND_S) + answering_s) as progress,
        tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch,
    ):
        progress.begin("starting Kafka and ingest", SERVERS_S)
        return _ingest(Path(scratch), progress)


def _ingest(scratch: Path, progress: Progress) -> dict[str, Any]:
    with EmbeddedKafka(scratch) as kafka:
        settings = Settings(
            bootstrap_servers=kafka.bootstrap_servers,
            ingest_port=lifecycle.claim_port("127.0.0.1", 0, "ingest_port"),
            ingest_workers=1,
            log_level="warning",
        )
        server = subprocess.Popen(
            [sys.executable, "-m", "experiments.bench.ingest_server"], env={**clean_environment(), **to_env(settings)}
        )
        try:
            _await_health(settings, server)
            rounds = uvloop.run(_rounds(settings.ingest_port, progress))
            answers = _answers(f"http://{settings.host}:{settings.ingest_port}", scratch, progress)
        finally:
            server.terminate()
            server.wait(30)
        bus = KafkaBus(kafka.bootstrap_servers)
        in_kafka = sum(bus.ends(topics(settings).events.name).values())
        bus.close()
    statuses: Counter[int] = Counter()
    for _, _, of_round in rounds:
        statuses += of_round
    return {
        "hello_rps": round(statistics.median(hello for hello, _, _ in rounds)),
        "accept_rps": round(statistics.median(accept for _, accept, _ in rounds)),
        "ratio": round(statistics.median(accept / hello for hello, accept, _ in rounds), 3),
        "ratios": [round(accept / hello, 3) for hello, accept, _ in rounds],
        "accepted": statuses[202],
        "refused": statuses.total() - statuses[202],
        "in_kafka": in_kafka,
        "connections": CONNECTIONS,
        **answers,
    }


def _answers(url: str, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Return how long after their planned moment reactions were answered, without slow connections and with them."""
    p99_ms: dict[bool, list[float]] = {False: [], True: []}
    refused = 0
    for number in range(1, ANSWER_ROUNDS + 1):
        for beside in p99_ms:
            what = f"answers {number}/{ANSWER_ROUNDS}, {'beside slow connections' if beside else 'alone'}"
            progress.begin(what, ANSWERED_S + LOAD_WARM_UP_S + LOAD_START_S)
            with slow.held(url) if beside else nullcontext():
                timed = _sent(ANSWERED_PER_S, ANSWERED_S, Parameters(), url, scratch).timed
            took_ms = (timed["t_answered_ns"] - timed["t_intended_ns"]).to_numpy(dtype=np.int64) / NS_PER_MS
            # What was refused, or had no answer, counts as infinite.
            not_accepted = timed["status"].to_numpy() != 202
            refused += int(not_accepted.sum())
            p99_ms[beside].append(rank_quantile(np.where(not_accepted, np.inf, took_ms), 0.99))
    return {
        "answer_p99_ms": round(statistics.median(p99_ms[False]), 1),
        "answer_beside_slow_p99_ms": round(statistics.median(p99_ms[True]), 1),
        "answers_beside_slow_p99_ms": [round(each, 1) for each in p99_ms[True]],
        "answers_refused": refused,
        "answers_per_s": ANSWERED_PER_S,
        "slow_bodies": slow.BODIES,
        "silent_connections": slow.SILENT,
    }


def load() -> dict[str, Any]:
    """Measure how well the generator keeps to its plan against a stub server, and up to which rate."""
    rungs: list[dict[str, Any]] = []
    usual = Parameters()
    plain = replace(usual, array_share=0, forms_share=0, invalid_share=0)
    loads = [*((rate_per_s, usual) for rate_per_s in LOAD_RATES_PER_S), (LOAD_RATES_PER_S[-1], plain)]
    lengths_s = [LOAD_S, *(LOAD_RUNG_S for _ in loads[1:])]
    besides_s = LOAD_WARM_UP_S + LOAD_START_S
    with (
        Progress(sum(lengths_s) + len(lengths_s) * besides_s) as progress,
        tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch,
    ):
        for (rate_per_s, forms), length_s in zip(loads, lengths_s, strict=True):
            progress.begin(f"{rate_per_s} reactions per second", length_s + besides_s)
            rungs.append(_keeping(rate_per_s, length_s, forms, Path(scratch)))
            if not rungs[-1]["kept"]:
                break
    highest = max((rung["rate_per_s"] for rung in rungs if rung["kept"]), default=0)
    return {
        **rungs[0],
        "highest_kept_per_s": highest,
        "higher": rungs[1 : len(LOAD_RATES_PER_S)],
        "plain": rungs[len(LOAD_RATES_PER_S) :],
    }


def _keeping(rate_per_s: int, length_s: int, forms: Parameters, scratch: Path) -> dict[str, Any]:
    """Send a plan in the `forms` of these parameters to a stub server; return how late the reactions were sent."""
    stub = [sys.executable, "-m", "experiments.bench.stub_server"]
    with subprocess.Popen(stub, stdout=subprocess.PIPE, text=True, encoding="utf-8") as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            plan, sent, timed = _sent(rate_per_s, length_s, forms, url, scratch)
        finally:
            server.terminate()
    delay_ms = (timed["t_sent_ns"] - timed["t_intended_ns"]).to_numpy(dtype=np.int64) / NS_PER_MS
    p50_ms, p99_ms = (rank_quantile(delay_ms, share) for share in (0.5, 0.99))
    due_ns = plan["t_intended_ns"].to_numpy(dtype=np.int64)
    return {
        "rate_per_s": rate_per_s,
        "planned": len(plan),
        "requests": int(plan["request"].nunique()),
        "sent": len(sent),
        "answered_202": int((sent["status"] == 202).sum()),
        "p50_ms": round(p50_ms, 2),
        "p99_ms": round(p99_ms, 2),
        "max_ms": round(float(delay_ms.max()), 2),
        "processes": processes_for(due_ns, os.cpu_count() or 1),
        "kept": len(sent) == len(plan) and p99_ms < SEND_DELAY_P99_MS,
    }


class _Load(NamedTuple):
    """A load: its plan, what was sent of it, and the measured reactions of both together."""

    plan: pd.DataFrame
    sent: pd.DataFrame
    timed: pd.DataFrame


def _sent(rate_per_s: int, length_s: int, forms: Parameters, url: str, scratch: Path) -> _Load:
    """Send a plan in the `forms` of these parameters to `url`; raises EmoStreamError if the load fails."""
    asked_ns = time.time_ns()
    given = replace(
        forms,
        users=rate_per_s,
        rate_per_s=rate_per_s,
        trigger_s=1.0,
        warm_up_triggers=LOAD_WARM_UP_S,
        measured_triggers=length_s,
    )
    plan = postponed(plan_of(given, asked_ns), asked_ns)
    paths = [scratch / f"{name}.parquet" for name in ("plan", "sent", "invalid")]
    plan.to_parquet(paths[0], index=False)
    invalid.planned(plan, given.invalid_share, given.seed).to_parquet(paths[2], index=False)
    words = [str(paths[0]), str(paths[1]), url, "--invalid", str(paths[2])]
    command = [sys.executable, "-m", "experiments.load", *words]
    if (status := subprocess.run(command, check=False).returncode) != 0:
        raise EmoStreamError(f"the load ended with status {status}: see its message above")
    sent = pd.read_parquet(paths[1])
    return _Load(plan, sent, plan[plan["phase"] == "measured"].merge(sent, on="seq"))


async def _rounds(port: int, progress: Progress) -> list[tuple[float, float, Counter[int]]]:
    """Return each round's hello rate, accept rate and the statuses of its posts."""
    # Enough users that none exceeds the rate limit, which applies as usual.
    stamp = timestamp_of(time.time_ns())
    posts = [
        post(
            "/reactions",
            encode({"user_id": f"fan-{n:05d}", "emoji_type": POPULAR_EMOJIS[n % 30], "timestamp": stamp}),
        )
        for n in range(20_000)
    ]
    hello = [get("/hello")]
    rounds = []
    for number in range(1, ROUNDS + 1):
        progress.begin(f"round {number}/{ROUNDS}", PAUSE_S + 2 * ROUND_S)
        # The flush after one part must not fall into the time of the other.
        await asyncio.sleep(PAUSE_S)
        greeted = await hammer("127.0.0.1", port, hello, CONNECTIONS, ROUND_S)
        accepted = await hammer("127.0.0.1", port, posts, CONNECTIONS, ROUND_S)
        rounds.append((greeted.rps, accepted.rps, accepted.statuses))
    return rounds


def _await_health(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    url = f"http://{settings.host}:{settings.ingest_port}/healthz"
    deadline_s = time.monotonic() + SERVER_START_S
    while server.poll() is None and time.monotonic() < deadline_s:
        try:
            with direct_http.get(url, timeout_s=2):
                return
        except OSError:
            time.sleep(0.1)
    raise EmoStreamError(f"ingest did not answer at {url} within {SERVER_START_S:g} s: see its log above")


SUITES: dict[str, Callable[[], dict[str, Any]]] = {
    "chain": chain,
    "ingest": ingest,
    "load": load,
    "analysis": analysis,
    "delivery": delivery,
    "search": search,
    "steady": steady,
    "twin": twin,
    "limits": limits,
    "soak": soak,
}
