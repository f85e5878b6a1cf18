"""Sample the CPU time and memory of each stage during a run, from the outside."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import pandas as pd
import psutil

from experiments.analysis.usage import INTERRUPTS, MACHINE
from experiments.ledger import COLUMNS
from experiments.machine import machine_lock

SAMPLE_S = 2.0
_STAGES = {
    "pipeline": "supervisor",
    "pipeline.broker": "kafka",
    "spark.job": "spark",
    "pipeline.ingest": "ingest",
    "pipeline.registry": "registry",
    "pipeline.main_publisher": "main-publisher",
    "pipeline.cluster_publisher": "cluster-publisher",
    "pipeline.subscriber": "subscriber",
    "experiments.twin": "twin",
    "experiments.load": "load",
    "locust": "load",
    "experiments.run.audience": "receivers",
    "experiments.machine.throttle": "intervention",
    "experiments.machine.quota": "intervention",
}


class UsageWatch:
    """Samples every stage below this process, and `roots` (process ids) with all below, while it is entered.

    A stage's figure is the sum over its processes, their children included (a JVM, ingest's workers), those that have
    ended as well; all subscribers together are one stage. The stage `machine` is the whole machine, all processes
    included, and `interrupts` what the kernel did in no process's name: most of it for the network of loopback.
    `other_run` tells whether a load generator of another process was seen on the machine, however briefly.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self.other_run = False
        self._roots = (os.getpid(), *roots)
        self._rows: list[tuple[int, str, float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage-watch", daemon=True)

    def __enter__(self) -> UsageWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def frame(self) -> pd.DataFrame:
        """Return `t_ns, stage, cpu_s, rss_bytes`: a row per stage and sample; cpu_s counts from the process's start."""
        return pd.DataFrame(self._rows, columns=list(COLUMNS["usage"]))

    def _run(self) -> None:
        while True:
            self._rows += _sample(self._roots)
            self.other_run |= machine_lock.foreign_load()
            if self._stop.wait(SAMPLE_S):
                return


def _sample(roots: Iterable[int]) -> list[tuple[int, str, float, int]]:
    now_ns = time.time_ns()
    cpu_s: dict[str, float] = defaultdict(float)
    rss: dict[str, int] = defaultdict(int)
    for process, stage in processes(roots):
        try:
            with process.oneshot():
                times = process.cpu_times()
                rss[stage] += process.memory_info().rss
                # Spark's JVM starts programs that end between two samples.
                cpu_s[stage] += sum(times[:4])
        except psutil.Error:
            # It ended after it was listed.
            continue
    whole = psutil.cpu_times()
    # What the host took (steal) nobody here used. It is judged by itself, and guests are in `user`.
    busy_s = sum(whole) - whole.idle - sum(getattr(whole, name, 0.0) for name in ("iowait", "steal", "guest"))
    interrupts_s = sum(getattr(whole, name, 0.0) for name in ("irq", "softirq"))
    rows = [(now_ns, stage, cpu_s[stage], rss[stage]) for stage in cpu_s]
    return [*rows, (now_ns, INTERRUPTS, interrupts_s, 0), (now_ns, MACHINE, busy_s, psutil.virtual_memory().used)]


def processes(roots: Iterable[int]) -> Iterator[tuple[psutil.Process, str]]:
    """Yield every process at or below the `roots` that belongs to a stage, once, with its stage."""
    seen: dict[int, str | None] = {}
    for root in roots:
        try:
            top = psutil.Process(root)
            below = [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        # Parents come before their children, so a process that is not a stage itself belongs to its parent's.
        for process in below:
            try:
                if process.pid in seen:
                    continue
                seen[process.pid] = stage = stage_of(process.cmdline()) or seen.get(process.ppid())
            except psutil.Error:
                continue
            if stage is not None:
                yield process, stage


def stage_of(command: Sequence[str]) -> str | None:
    """Return the stage that a command line such as `python -m spark.job` starts, None for any other.

    JMeter is `java … -jar …/ApacheJMeter.jar`.

    Some rename themselves where they can: `granian wsgi 127.0.0.1:8080 pipeline.registry`, and `up` to `emostream`.
    """
    words = " ".join(command).split()
    if words[:1] == ["emostream"]:
        return "supervisor"
    if words[:1] == ["granian"]:
        return next((_STAGES[word] for word in words if word in _STAGES), None)
    if any(word.endswith("ApacheJMeter.jar") for word in words):
        return "load"
    return next((_STAGES.get(module) for flag, module in pairwise(words) if flag == "-m"), None)
