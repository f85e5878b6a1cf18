"""An intervention in a run: every process of the stage is slowed, no other, and the manifest has what was done."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from experiments.machine.throttle import Slowed, cpu_clock
from experiments.run import slowdown, usage
from experiments.run.slowdown import STAGES, Slowdown, described
from pipeline.errors import EmoStreamError, SettingError
from tests.harness.waiting import until

BUSY = "while True: pass"


def test_each_stage_that_can_be_slowed_is_known_to_the_usage() -> None:
    """A stage that no process has could never be slowed; the throttle itself is part of none."""
    named = {stage for stages in STAGES.values() for stage in stages}
    assert named <= set(usage._STAGES.values())
    assert usage.stage_of(["python", "-m", "experiments.machine.throttle", "1", "0.1"]) not in named


def test_only_the_processes_of_the_stage_are_slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process of Spark and one of ingest: only the first gets a throttle, and its share is recorded."""
    # The words after -c stand where a stage's would.
    commands = [[sys.executable, "-S", "-c", BUSY, "-m", module] for module in ("spark.job", "pipeline.ingest")]
    processes = [subprocess.Popen(command) for command in commands]
    own = {process.pid for process in processes}
    # Other tests of this process may have a broker, or Spark.
    monkeypatch.setattr(
        slowdown, "processes", lambda roots: [known for known in usage.processes(roots) if known[0].pid in own]
    )
    try:
        until(lambda: len(slowdown.processes([os.getpid()])) == 2, "both are known")
        with Slowdown("spark", 0.2, []) as slowed:
            clock = cpu_clock(processes[0].pid)
            until(lambda: time.clock_gettime(clock) > 0.7, "Spark worked")
        assert [row["pid"] for row in slowed.about["processes"]] == [processes[0].pid]
        assert slowed.about["stage"] == "spark"
        assert slowed.about["reached"] == pytest.approx(0.2, rel=0.02)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_stage_that_starts_later_is_slowed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load begins after the chain; it is found within the next look."""
    monkeypatch.setattr(slowdown, "LOOK_S", 0.05)
    with Slowdown("instrument", 0.5, []) as slowed:
        load = subprocess.Popen([sys.executable, "-S", "-c", BUSY, "-m", "experiments.load"])
        try:
            stopped = psutil.STATUS_STOPPED
            until(lambda: psutil.Process(load.pid).status() == stopped, "the throttle works", poll_s=0.001)
            begun_s = time.clock_gettime(cpu_clock(load.pid))
            until(lambda: time.clock_gettime(cpu_clock(load.pid)) > begun_s + 0.4, "the load worked")
        finally:
            load.kill()
            load.wait()
    assert slowed.about["reached"] == pytest.approx(0.5, abs=0.05)


def test_nothing_is_slowed_without_an_intervention() -> None:
    """The usual run: no throttle, nothing in the manifest."""
    with Slowdown("none", 0.1, [os.getpid()]) as slowed:
        pass
    assert slowed.about == {}


def test_a_chain_without_the_stage_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a twin, which is one process: with the parameter and the remedy."""
    monkeypatch.setattr(slowdown, "processes", lambda roots: [])
    with pytest.raises(SettingError, match="slow_stage is 'kafka', and the chain has no process of it"):
        Slowdown("kafka", 0.1, []).__enter__()


def test_the_share_reached_is_of_all_processes_together() -> None:
    """And a stage that used no CPU was not slowed, which is an error."""
    about = described("ingest", 0.2, [Slowed(1, 3.0, 0.75, 9, 1.0), Slowed(2, 1.0, 0.25, 3, 0.4)])
    assert about["reached"] == 0.2
    assert about["cpu_s"] == 4.0
    with pytest.raises(EmoStreamError, match="the stage 'instrument' was not slowed"):
        described("instrument", 0.2, [])
