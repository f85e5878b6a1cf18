"""Planted disturbances: they act while a run lasts, end with it, and say when the system does not allow them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from experiments.machine import planted as planting
from experiments.machine.planted import planted
from experiments.parameters import Parameters
from experiments.run.usage import stage_of
from pipeline.errors import EmoStreamError
from tests.harness.waiting import until


@pytest.fixture
def receivers() -> Iterator[psutil.Process]:
    """Yield a process that sleeps."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def disturbing() -> list[psutil.Process]:
    """Return the disturbances that this process has started."""
    children = psutil.Process().children()
    return [one for one in children if "experiments.machine.planted" in one.cmdline()]


def test_without_disturbances_nothing_is_started() -> None:
    """An ordinary run is left alone."""
    with planted(Parameters(), os.getpid()):
        assert disturbing() == []


def test_foreign_work_takes_each_core_and_ends_with_the_run() -> None:
    """A process for each core, which uses CPU and is of no stage: so it counts as foreign."""
    with planted(Parameters(foreign_share=0.5), os.getpid()):
        started = disturbing()
        assert len(started) == os.cpu_count()
        assert [stage_of(one.cmdline()) for one in started] == [None] * len(started)
        spent_s = [sum(one.cpu_times()[:2]) for one in started]
        until(
            lambda: all(sum(one.cpu_times()[:2]) > before for one, before in zip(started, spent_s, strict=True)),
            "CPU time of each",
        )
    assert not any(one.is_running() for one in started)


def test_receivers_are_stopped_and_go_on(receivers: psutil.Process) -> None:
    """They are stopped for a while again and again, and never left so."""
    with planted(Parameters(stall_ms=400), receivers.pid):
        until(lambda: receivers.status() == psutil.STATUS_STOPPED, "a stop")
        until(lambda: receivers.status() != psutil.STATUS_STOPPED, "going on")
        until(lambda: receivers.status() == psutil.STATUS_STOPPED, "a stop")
    until(lambda: receivers.status() != psutil.STATUS_STOPPED, "going on")
    assert disturbing() == []


def test_bursts_without_real_time_priority_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameter, its value and the remedy are named."""

    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(planting.os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(planting.os, "sched_setscheduler", denied)
    with pytest.raises(EmoStreamError, match=r"burst_share is 0\.1, and .* no real-time priority .*CAP_SYS_NICE"):
        planting.bursts(0.1, 0)


def test_a_disturbance_that_does_not_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and the others are ended."""
    start = planting._start
    monkeypatch.setattr(planting, "_start", lambda words: start(["nothing", *words[1:]]))
    with pytest.raises(EmoStreamError, match=r"the disturbance foreign 0\.2 did not start"):
        planted(Parameters(foreign_share=0.2), os.getpid()).__enter__()
    assert disturbing() == []
