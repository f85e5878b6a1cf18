"""A limit on the cores of several processes: what they use, and that none is left stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from experiments.machine.throttle import cpu_clock
from tests.harness.waiting import until

# Less than two loops get on a machine that many others use.
CORES = 0.05
# Starts a process that would use all that it gets and says its id, at once and again for a line.
PARENT = """
import subprocess, sys
for _ in range(2):
    child = subprocess.Popen([sys.argv[1], "-S", "-c", "while True: pass"])
    print(child.pid, flush=True)
    sys.stdin.readline()
child.wait()
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run two processes that would use all that they get."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(2)]
    yield running
    for process in running:
        process.kill()
        process.wait()


def used_s(pids: list[int]) -> float:
    """Return the CPU time of all of them."""
    return sum(time.clock_gettime(cpu_clock(pid)) for pid in pids)


def test_the_processes_use_no_more_than_they_may_and_run_on_afterwards(
    processes: list[subprocess.Popen[bytes]],
) -> None:
    """Two busy loops share 0.05 cores: never more, whatever else the machine does."""
    pids = [process.pid for process in processes]
    quota = subprocess.Popen(
        [sys.executable, "-m", "experiments.machine.quota", str(CORES), *map(str, pids)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until(
            lambda: any(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids), "a process is stopped"
        )
        before_s = used_s(pids)
        until(lambda: used_s(pids) - before_s > 0.08, "the processes go on")
    finally:
        quota.terminate()
        output, _ = quota.communicate(timeout=240)
    done = json.loads(output)
    # Above it by at most what two cores use between two looks, of the last period.
    assert 0 < done["used_cores"] <= CORES * 1.2
    assert done["stopped_share"] > 0
    until(lambda: all(psutil.Process(pid).status() != psutil.STATUS_STOPPED for pid in pids), "all run on")


def test_a_process_that_is_started_later_is_limited_as_well() -> None:
    """A worker that was replaced counts like the one before it."""
    parent = subprocess.Popen(
        [sys.executable, "-S", "-c", PARENT, sys.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    quota = None
    try:
        first = psutil.Process(int(parent.stdout.readline()))
        quota = subprocess.Popen(
            [sys.executable, "-m", "experiments.machine.quota", str(CORES), str(parent.pid)], stdout=subprocess.PIPE
        )
        until(lambda: first.status() == psutil.STATUS_STOPPED, "the limit has begun")
        # The parent is stopped as well now and then.
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        second = psutil.Process(int(parent.stdout.readline()))
        until(lambda: second.status() == psutil.STATUS_STOPPED, "the new process is stopped")
        quota.terminate()
        quota.communicate(timeout=240)
        until(lambda: psutil.STATUS_STOPPED not in (first.status(), second.status()), "both run on")
    finally:
        for each in (*psutil.Process(parent.pid).children(), parent, *([quota] if quota else [])):
            each.kill()
        parent.communicate()
        if quota:
            quota.communicate()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["0", "1"], "cores is 0: give more than 0"), (["0.5", "4194305"], "none of the processes 4194305 runs")],
)
def test_what_cannot_be_limited_is_named(arguments: list[str], words: str) -> None:
    """Cores, and processes that do not run."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.machine.quota", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert words in done.stderr
