"""Sample the CPU time and memory of each stage during a run, from the outside."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
import psutil

from experiments.analysis.usage import INTERRUPTS, MACHINE, OTHERS
from experiments.ledger import COLUMNS
from experiments.machine import machine_lock

SAMPLE_S = 2.0
MEASUREMENT = "measurement"
"""The stage of this process, which samples, and keeps what it has sampled."""
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

    A stage's figure is the sum over its processes, their children included (a JVM, ingest's workers); all subscribers
    together are one stage. `others` are all processes of the machine that are of no stage, as far as they can be read.
    The stage `machine` is the whole machine, and `interrupts` what the kernel did in interrupts: most of it for the
    network of loopback. Whether a process's own figure includes the interrupts it was stopped for depends on how the
    kernel was built. `other_run` tells whether a load generator of another process was seen, however briefly.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self.other_run = False
        self._roots = (os.getpid(), *roots)
        self._spent = CpuTimes()
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
        """Return `t_ns, stage, cpu_s, rss_bytes`: a row per stage and sample; cpu_s never decreases."""
        return pd.DataFrame(self._rows, columns=list(COLUMNS["usage"]))

    def _run(self) -> None:
        while True:
            self._rows += _sample(self._roots, self._spent)
            self.other_run |= machine_lock.foreign_load()
            if self._stop.wait(SAMPLE_S):
                return


class CpuTimes:
    """The CPU time that each stage has spent, from samples of its processes: one that ends takes none of it away.

    The warm-up and the measurement have a load process each. Were only the living ones summed up, the load's figure
    would start over between them, and what it had used would look like foreign work.
    """

    def __init__(self) -> None:
        self.of_stage: dict[str, float] = defaultdict(float)
        self._last: dict[tuple[int, float], _Process] = {}

    def stage_of(self, key: tuple[int, float]) -> str | None:
        """Return the stage that a process had in the last sample, None for a new one."""
        return self._last[key].stage if key in self._last else None

    def add(self, sampled: Mapping[tuple[int, float], _Process]) -> None:
        """Take one sample of all processes, by process id and moment of their creation."""
        keys = {key[0]: key for key in self._last}
        ended: dict[tuple[int, float] | None, list[_Process]] = defaultdict(list)
        for key, process in self._last.items():
            if key not in sampled:
                above = keys.get(process.parent)
                # Parent and child may both have ended since: the one above them has the times of both.
                while above is not None and above not in sampled:
                    above = keys.get(self._last[above].parent)
                ended[above].append(process)
        for key, now in sampled.items():
            then = self._last.get(key, _Process(now.stage, now.parent, 0.0, 0.0))
            self.of_stage[now.stage] += now.own_s - then.own_s
            # The kernel adds a child's time to its parent's when the parent has taken note of its end.
            below = ended.get(key, [])
            gained_s = now.children_s - then.children_s - sum(child.own_s + child.children_s for child in below)
            if gained_s > 0:
                # The last of an ended child's time, or all of one that ended between two samples.
                self.of_stage[below[0].stage if below else now.stage] += gained_s
        self._last = dict(sampled)


@dataclass(frozen=True)
class _Process:
    stage: str
    parent: int
    own_s: float
    children_s: float


def _sample(roots: Iterable[int], spent: CpuTimes) -> list[tuple[int, str, float, int]]:
    now_ns = time.time_ns()
    stages = {os.getpid(): MEASUREMENT, **{process.pid: stage for process, stage in processes(roots)}}
    sampled: dict[tuple[int, float], _Process] = {}
    rss: dict[str, int] = defaultdict(int)
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                times, key = process.cpu_times(), (process.pid, process.create_time())
                # One that has ended, and that its parent has not taken note of, has no command line any more.
                stage = stages.get(process.pid) or spent.stage_of(key) or OTHERS
                children_s = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
                sampled[key] = _Process(stage, process.ppid(), times.user + times.system, children_s)
                rss[stage] += process.memory_info().rss
        except psutil.Error:
            # It ended after it was listed, or belongs to somebody else.
            continue
    spent.add(sampled)
    whole = psutil.cpu_times()
    # What the host took (steal) nobody here used. It is judged by itself, and guests are in `user`.
    busy_s = sum(whole) - whole.idle - sum(getattr(whole, name, 0.0) for name in ("iowait", "steal", "guest"))
    interrupts_s = sum(getattr(whole, name, 0.0) for name in ("irq", "softirq"))
    rows = [(now_ns, stage, cpu_s, rss[stage]) for stage, cpu_s in spent.of_stage.items()]
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
