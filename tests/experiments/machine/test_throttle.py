"""The throttle: how much CPU it uses in a process's place, and that it never leaves a process stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from experiments.machine.throttle import LEAST_S, cpu_clock, extra
from tests.harness.waiting import until

BUSY = "while True: pass"
IDLE = "import time\nwhile True: time.sleep(0.2)"


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program in the test's parameter."""
    with subprocess.Popen([sys.executable, "-S", "-c", request.param]) as running:
        yield running
        running.kill()


def throttle(pid: int, share: float) -> subprocess.Popen[str]:
    """Start a throttle."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.machine.throttle", str(pid), str(share)], stdout=subprocess.PIPE, text=True
    )


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for this signal."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_share_of_the_sum() -> None:
    """A tenth of the sum is a ninth of the rest; half of it doubles it."""
    assert extra(0.1) == pytest.approx(1 / 9)
    assert extra(0.5) == 1


@pytest.mark.parametrize("process", [BUSY], indirect=True)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_busy_process_loses_the_share_of_its_cpu(process: subprocess.Popen[bytes], share: float) -> None:
    """The throttle owes less than its shortest stop, however busy the machine is."""
    beside = throttle(process.pid, share)
    # The process's own CPU time, so that a busy machine makes the test longer and not wrong.
    until(lambda: time.clock_gettime(cpu_clock(process.pid)) > 0.6, "the process worked")
    beside.terminate()
    done = json.loads(beside.communicate(timeout=240)[0])
    assert done["cpu_s"] > 0.2
    assert done["burned_s"] == pytest.approx(extra(share) * done["cpu_s"], rel=0, abs=2 * LEAST_S)
    # It was stopped while the throttle worked in its place, apart from its looks and signals; those take up to half of
    # the work on a slow machine.
    assert done["stops"] > 10
    assert done["stopped_s"] > 0.4 * done["burned_s"]


@pytest.mark.parametrize("process", [IDLE], indirect=True)
def test_an_idle_process_is_never_stopped(process: subprocess.Popen[bytes]) -> None:
    """It owes nothing, and only looking costs something."""
    until(lambda: time.clock_gettime(cpu_clock(process.pid)) > 0.005, "the process began")
    beside = throttle(process.pid, 0.1)
    until(lambda: catches(beside.pid, signal.SIGTERM), "the throttle began")
    before_s = time.clock_gettime(cpu_clock(process.pid))
    until(lambda: time.clock_gettime(cpu_clock(process.pid)) > before_s, "the process woke up")
    beside.terminate()
    assert json.loads(beside.communicate(timeout=240)[0])["stops"] == 0


@pytest.mark.parametrize("process", [BUSY], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_runs_on_after_the_throttle(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Even if the throttle ends while the process is stopped: with this share it is most of the time."""
    beside = throttle(process.pid, 0.9)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the process is stopped")
    beside.send_signal(number)
    beside.communicate(timeout=240)
    until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED, "the process runs on")


@pytest.mark.parametrize("process", [BUSY], indirect=True)
def test_the_throttle_ends_with_the_process(process: subprocess.Popen[bytes]) -> None:
    """And says what it did until then."""
    beside = throttle(process.pid, 0.5)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the process is stopped")
    process.kill()
    process.wait()
    assert json.loads(beside.communicate(timeout=240)[0])["stops"] > 0
