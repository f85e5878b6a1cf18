"""The benchmark suites: each starts what it needs, takes under five minutes, prints and writes one JSON."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from experiments import manifest
from experiments.bench.hammer import hammer
from experiments.http1 import get, post
from experiments.parameters import Parameters
from experiments.run import measure
from experiments.schedule import POPULAR_EMOJIS, timestamp_of
from pipeline import lifecycle
from pipeline.broker import EmbeddedKafka
from pipeline.buses.kafka_bus import KafkaBus
from pipeline.errors import EmoStreamError
from pipeline.messages import encode
from pipeline.settings import Settings, to_env
from pipeline.topics import topics

ROUNDS = 5
ROUND_S = 6.0
CONNECTIONS = 100
SERVER_START_S = 30.0


def run(suite: str, out: Path) -> None:
    """Run `suite` ("chain" or "ingest"); print its figures and write them to `out`/<suite>.json."""
    figures = {"chain": chain, "ingest": ingest}[suite]()
    about = manifest.manifest({})
    figures["machine"] = {name: about[name] for name in ("cpu", "cores", "kernel", "commit")}
    text = json.dumps(figures, indent=1)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{suite}.json").write_text(text + "\n")
    print(text)


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
    """Compare what one ingest worker accepts with what a hello route on the same server answers.

    The two take turns within one run; the ratio is the median of the rounds' ratios.
    """
    with (
        tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch,
        EmbeddedKafka(Path(scratch)) as kafka,
    ):
        settings = Settings(
            bootstrap_servers=kafka.bootstrap_servers,
            ingest_port=lifecycle.claim_port("127.0.0.1", 0, "ingest_port"),
            ingest_workers=1,
        )
        server = subprocess.Popen(
            [sys.executable, "-m", "experiments.bench.ingest_server"], env={**os.environ, **to_env(settings)}
        )
        try:
            _await_health(settings, server)
            rounds = uvloop.run(_rounds(settings.ingest_port))
        finally:
            server.terminate()
            server.wait(30)
        bus = KafkaBus(kafka.bootstrap_servers)
        in_kafka = sum(bus.ends(topics(settings).events.name).values())
        bus.close()
    statuses: Counter[int] = Counter()
    for one in rounds:
        statuses += one[2]
    return {
        "hello_rps": round(statistics.median(hello for hello, _, _ in rounds)),
        "accept_rps": round(statistics.median(accept for _, accept, _ in rounds)),
        "ratio": round(statistics.median(accept / hello for hello, accept, _ in rounds), 3),
        "ratios": [round(accept / hello, 3) for hello, accept, _ in rounds],
        "accepted": statuses[202],
        "refused": statuses.total() - statuses[202],
        "in_kafka": in_kafka,
        "connections": CONNECTIONS,
    }


async def _rounds(port: int) -> list[tuple[float, float, Counter[int]]]:
    """Return each round's hello rate, accept rate and the statuses of its posts."""
    # Enough users that none is over the rate limit, which is in force as it is for everyone.
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
    for _ in range(ROUNDS):
        # The flush of one side must not run into the other's time.
        await asyncio.sleep(1)
        greeted = await hammer("127.0.0.1", port, hello, CONNECTIONS, ROUND_S)
        accepted = await hammer("127.0.0.1", port, posts, CONNECTIONS, ROUND_S)
        rounds.append((greeted.rps, accepted.rps, accepted.statuses))
    return rounds


def _await_health(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    url = f"http://{settings.host}:{settings.ingest_port}/healthz"
    deadline_s = time.monotonic() + SERVER_START_S
    while server.poll() is None and time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise EmoStreamError(f"ingest did not answer at {url} within {SERVER_START_S:g} s: its log stands above")
