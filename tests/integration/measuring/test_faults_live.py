"""Faults done to real parts during a real run: the instrument catches each and names it.

One fault has no live twin: a stepped clock. It would take root, and would step the clock under every other process
of the machine, Kafka's included; tests/experiments/analysis/test_faults.py steps it under the clock's watch instead.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pandas as pd
import psutil
import pytest

from experiments import ledger
from experiments.analysis.analyse import Analysis, analyse
from experiments.parameters import Parameters
from experiments.report.sentences import findings
from experiments.run import chain, read_back
from experiments.run.chain import Endpoints
from experiments.run.measure import Result, measure
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import TopicSpec, topics
from tests.harness.http import Quiet, serving

pytestmark = pytest.mark.integration

STALL_S = 1.5
# The run writes its plan when its clients are connected; after that long it will not.
PLAN_S = 60.0
# Longer than a delivery may take and a trigger together, and shorter than `silent_s`, after which a subscriber is out.
SLOW_S = 4.5
DROPPED, DOUBLED = 150, 200


class _Careless(Quiet):
    """Passes requests on to ingest, but answers one for itself and passes one on twice."""

    protocol_version = "HTTP/1.1"
    ingest: ClassVar[str]
    seen: ClassVar[list[dict[str, Any]]]
    lock: ClassVar[threading.Lock]

    def do_POST(self) -> None:
        """Pass the reaction on once, or as often as its number asks for."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            number = len(self.seen)
            self.seen.append(json.loads(body))
        status = 202
        for _ in range({DROPPED: 0, DOUBLED: 2}.get(number, 1)):
            status = self._pass_on(body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _pass_on(self, body: bytes) -> int:
        place = urlsplit(self.ingest)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        try:
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            with connection.getresponse() as answer:
                answer.read()
                return answer.status
        finally:
            connection.close()


@contextmanager
def careless(ingest: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the URL of a careless proxy before `ingest`, and all that it was sent."""
    seen: list[dict[str, Any]] = []
    handler = type("Handler", (_Careless,), {"ingest": ingest, "seen": seen, "lock": threading.Lock()})
    with serving(handler) as url:
        yield url, seen


def hold(pid: int, words: Sequence[str], for_s: float) -> None:
    """Stop every process below `pid` whose command line has all of `words`, and let it go on after `for_s`."""
    held = [process for process in psutil.Process(pid).children(recursive=True) if _says(process, words)]
    assert held, f"no process below {pid} says {' '.join(words)}"
    for process in held:
        process.send_signal(signal.SIGSTOP)
    time.sleep(for_s)
    for process in held:
        process.send_signal(signal.SIGCONT)


def _says(process: psutil.Process, words: Sequence[str]) -> bool:
    try:
        return " ".join(words) in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def do_harm(chain_pid: int, run_dir: Path) -> None:
    """Wait for the plan; while it is being measured hold up the generator, then a subscriber."""
    end_s = time.monotonic() + PLAN_S
    while not (run_dir / "plan.parquet").exists():
        if time.monotonic() > end_s:
            # The run failed before: its own error is the one to read.
            return
        time.sleep(0.1)
    plan = pd.read_parquet(run_dir / "plan.parquet")
    measured_ns = int(plan.loc[plan["phase"] == "measured", "t_intended_ns"].iloc[0])
    time.sleep(max(0.0, measured_ns / 1e9 + 1 - time.time()))
    hold(os.getpid(), ["-m", "experiments.load"], STALL_S)
    hold(chain_pid, ["--cluster", "1", "--subscriber", "1"], SLOW_S)


@pytest.fixture(scope="module")
def spoiled(chain_up: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[dict[str, Any]]]:
    """A short run on the chain that is up, with a careless way in, a generator and a subscriber held up."""
    place = tmp_path_factory.mktemp("spoiled")
    with careless(chain_up.ingest) as (url, seen):
        ready = json.loads((Path(chain_up.run_dir) / "ready.json").read_text()) | {"ingest": url}
        (place / "ready.json").write_text(json.dumps(ready))
        parameters = Parameters(
            users=20,
            rate_per_s=60.0,
            clients=8,
            warm_up_triggers=1,
            measured_triggers=5,
            attach=str(place / "ready.json"),
        )
        harm = threading.Thread(target=do_harm, args=(chain_up.pid, place / "run"))
        harm.start()
        try:
            result = measure(parameters, place / "run")
        finally:
            harm.join()
    return result, seen


@pytest.fixture(scope="module")
def analysis(spoiled: tuple[Result, list[dict[str, Any]]]) -> Analysis:
    """The analysis of that run."""
    return spoiled[0].analysis


@pytest.fixture(scope="module")
def words(analysis: Analysis) -> str:
    """What its report says first."""
    return " ".join(findings(analysis.summary, {"trigger_s": 1.0}))


def missed(analysis: Analysis) -> set[str]:
    """Return the keys of the objectives that were not met."""
    return {slo.key for slo in analysis.verdict.slos if not slo.passed}


def named(analysis: Analysis, problem: str) -> list[str]:
    """Return the users named with `problem`."""
    problems = analysis.conservation.problems
    return list(problems.loc[problems["problem"] == problem, "user_id"])


def test_a_stopped_generator_makes_the_run_invalid(analysis: Analysis) -> None:
    """The generator's process is stopped for a second and a half: INVALID, with the reaction that went out late."""
    assert not analysis.verdict.valid
    assert any(reason.startswith("The generator stalled: seq ") for reason in analysis.verdict.reasons)
    delays = analysis.reactions["t_sent_ns"] - analysis.reactions["t_intended_ns"]
    assert delays.max() > (STALL_S - 0.5) * 1e9


def test_a_dropped_reaction_is_lost_by_name(
    spoiled: tuple[Result, list[dict[str, Any]]], analysis: Analysis, words: str
) -> None:
    """A reaction that is answered 202 and goes nowhere is missed, and it is that one."""
    assert analysis.summary["lost"] == 1
    assert named(analysis, "lost") == [spoiled[1][DROPPED]["user_id"]]
    assert "lost" in missed(analysis)
    assert "one reaction lost" in words


def test_a_doubled_reaction_is_named(
    spoiled: tuple[Result, list[dict[str, Any]]], analysis: Analysis, words: str
) -> None:
    """A reaction that stands in Kafka twice is counted twice, and it is that one."""
    assert analysis.summary["duplicated"] == 1
    assert named(analysis, "duplicated") == [spoiled[1][DOUBLED]["user_id"]]
    assert "duplicated" in missed(analysis)
    assert "one reaction counted more than once" in words


def test_a_stopped_subscriber_is_late_by_name(analysis: Analysis, words: str) -> None:
    """A subscriber's process is stopped while windows come: each of its clients has late ones, and it is named."""
    audited = analysis.audit
    its_own = audited[(audited["cluster"] == "1") & (audited["subscriber"] == "1")]
    assert len(its_own) == 4
    assert (its_own["late"] > 0).all()
    assert "deliveries_late" in missed(analysis)
    assert analysis.summary["subscribers_at_fault"].split(", ")[0] == "1/1"
    assert " late (at subscriber" in words


def test_what_spark_counted_is_right_for_all_that(analysis: Analysis) -> None:
    """The faults were before and behind Spark: its own counts agree with the recount."""
    assert analysis.oracle.equal == analysis.oracle.cells > 0
    assert "oracle_share" not in missed(analysis)


def test_an_altered_count_in_kafka_is_named(spoiled: tuple[Result, list[dict[str, Any]]], chain_up: Endpoints) -> None:
    """The windows, copied to another topic with one count changed, no longer agree with emoji-events."""
    run_dir = spoiled[0].run_dir
    about = json.loads((run_dir / "manifest.json").read_text())
    frames = {name: pd.read_parquet(run_dir / f"{name}.parquet") for name in ledger.COLUMNS}
    names = topics(chain.settings_of(chain_up))
    bus = KafkaBus(chain_up.bootstrap_servers)
    try:
        bus.ensure(TopicSpec("altered-aggregates"))
        writer = bus.writer()
        changed = None
        for record in bus.read(names.aggregates.name):
            window = json.loads(record.value or b"{}")
            if changed is None and f"{window['epoch']}:{window['window']}" in _measured(spoiled[0]):
                changed = (window["epoch"], window["window"], window["reactions"][0]["emoji_type"])
                window["reactions"][0]["count"] += 1
            writer.send("altered-aggregates", json.dumps(window).encode())
        writer.close()
        altered = read_back.windows(bus.read("altered-aggregates"), {})
    finally:
        bus.close()
    ours = altered.merge(frames["windows"][ledger.WINDOW_KEY], on=ledger.WINDOW_KEY)
    result = analyse(frames | {"windows": ours}, about["parameters"], about)
    differing = result.oracle.differing
    assert list(differing[["epoch", "window", "emoji_type"]].itertuples(index=False, name=None)) == [changed]
    assert "oracle_share" in missed(result)
    assert "one count differing from what the topic holds" in " ".join(findings(result.summary, about["parameters"]))


def _measured(result: Result) -> set[str]:
    windows = result.analysis.end_to_end.windows
    return set(windows["epoch"] + ":" + windows["window"].astype(str))
