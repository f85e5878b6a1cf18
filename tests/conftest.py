"""What all tests share: one Kafka per process, how tests are spread over processes, and that none leaves one behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.broker.embedded import EmbeddedKafka

# `make test` spreads the tests over processes (pytest-xdist): a group stays together, and these begin first.
GROUPS = (
    # What measures, and what a measurement takes for the load of somebody else: the machine has one at a time.
    "measuring",
    # Chains that are killed, scaled and ended.
    "chains",
    # The page, and the stream seen from outside, on one chain.
    "page",
    # Everything on the one broker, Spark's job included.
    "kafka",
)
LEFT = "left_running"
"""Under this name a process of xdist reports the command lines of what it left running."""


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real Kafka for all tests of a process; a test makes topics with names of its own."""
    folder: Path = tmp_path_factory.mktemp("kafka")
    with EmbeddedKafka(folder) as kafka:
        yield kafka


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group a test that names no group: with those that use the broker, or else by file. GROUPS go first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("kafka" if _needs_broker(item) else item.path.stem))
    order = {group: place for place, group in enumerate(GROUPS)}
    items.sort(key=lambda item: order.get(_group(item), len(GROUPS)))


def _needs_broker(item: pytest.Item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("bus") == "kafka" or "broker" in getattr(item, "fixturenames", ())


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.args[0])


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
