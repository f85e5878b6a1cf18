"""What all tests share: one Kafka per process, how tests are spread over processes, and that none leaves one behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from experiments import environment
from experiments.run.notebook import leave_out_unused
from pipeline.broker.embedded import EmbeddedKafka
from tests.harness import groups

LEFT = "left_running"
"""Under this name a process of xdist reports the command lines of what it left running."""


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real Kafka for all tests of a process; a test makes topics with names of its own."""
    folder: Path = tmp_path_factory.mktemp("kafka")
    with EmbeddedKafka(folder) as kafka:
        yield kafka


def pytest_configure(config: pytest.Config) -> None:
    """Let tests and what they start run as on a machine where nothing is set for other programs, and no proxy."""
    own = environment.without_proxies(environment.own(os.environ))
    for name in set(os.environ) - set(own):
        del os.environ[name]
    # A thread of OpenBLAS turns in circles while another one waits for a core: a test of 1 s took 16 s of CPU.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # Set in many containers; an unbuffered output hides what Python does with its buffer when a process ends.
    os.environ.pop("PYTHONUNBUFFERED", None)
    leave_out_unused()


# Tests side by side.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups of tests first that take longest."""
    assert groups.missing() == []
    assert groups.started_twice(items) == {}
    items.sort(key=lambda item: groups.place(item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for garbage among new objects only: going through thousands of tests each time took 14 % of the CPU."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let what mostly waits go before what computes, and what measures before both, if processes run side by side."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Only root may lower it again.
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, groups.NICE[groups.group(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep the groups together (pytest-xdist calls this; its own `--dist loadgroup` does not work with pytest 9.2)."""
    config.option.loadscopereorder = False
    return groups.Scheduling(config, log)  # type: ignore[arg-type]


# No process stays behind.


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a process that a test started is still there."""
    config = session.config
    left = getattr(config, LEFT, [])
    if not config.getoption("numprocesses", None):
        left += [" ".join(child.cmdline()) for child in _children()]
    if hasattr(config, "workeroutput"):
        config.workeroutput[LEFT] = left
    elif left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    setattr(config, LEFT, left)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over what a process of xdist reports (pytest-xdist calls this)."""
    config = node.config  # type: ignore[attr-defined]
    setattr(config, LEFT, getattr(config, LEFT, []) + getattr(node, "workeroutput", {}).get(LEFT, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left running."""
    for command in getattr(config, LEFT, []):
        terminalreporter.write_line(f"LEFT RUNNING by a test: {command}", red=True)


def _children() -> list[psutil.Process]:
    """The processes below this one that run; what multiprocessing keeps until the very end is not a test's."""
    running = []
    for child in psutil.Process().children(recursive=True):
        try:
            kept = "multiprocessing.resource_tracker" in " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and not kept:
                running.append(child)
        except psutil.Error:
            continue
    return running
