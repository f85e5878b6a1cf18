"""A wall clock that is wrong in the processes that are started with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.machine.planted_clock import PlantedClock
from tests.harness.waiting import DEADLINE_S

# `datetime` asks the system itself, and so keeps the true time.
CHILD = """
import sys, time
from datetime import datetime
for _ in sys.stdin:
    print(time.time() - datetime.now().timestamp(), flush=True)
"""


def test_a_running_process_sees_each_change(tmp_path: Path) -> None:
    """It is right at first, jumps by two hours and back, and runs ahead; this process keeps the true time."""
    clock = PlantedClock(tmp_path / "clock")
    before = time.time_ns
    with clock.for_children():
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
    assert time.time_ns is before
    assert child.stdin is not None
    assert child.stdout is not None

    def ahead_s() -> float:
        print(file=child.stdin, flush=True)
        return float(child.stdout.readline())

    try:
        assert ahead_s() == pytest.approx(0, abs=1)
        clock.set(step_ns=7_200_000_000_000)
        assert ahead_s() == pytest.approx(7200, abs=1)
        clock.set(step_ns=-7_200_000_000_000)
        assert ahead_s() == pytest.approx(-7200, abs=1)
        clock.set(begin_ns=time.monotonic_ns() - 1_000_000_000, rate=100.0)
        first = ahead_s()
        assert 99 < first < ahead_s()
        clock.set(begin_ns=time.monotonic_ns() + 3600 * 10**9, step_ns=7_200_000_000_000)
        assert ahead_s() == pytest.approx(0, abs=1)
    finally:
        child.stdin.close()
        assert child.wait(DEADLINE_S) == 0
        child.stdout.close()


def test_processes_started_afterwards_have_the_true_clock(tmp_path: Path) -> None:
    """The variables are as before."""
    clock = PlantedClock(tmp_path / "clock")
    clock.set(step_ns=7_200_000_000_000)
    with clock.for_children():
        pass
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input="\n", capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert float(done.stdout) == pytest.approx(0, abs=1)
