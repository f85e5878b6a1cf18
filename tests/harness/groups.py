"""How `make test` spreads the tests over processes: tests of a group, else of a file, run in one of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.harness.paths import REPOSITORY

# The groups begin in this order, and within a group the tests. A folder stands for its files that are not named before.
GROUPS = {
    # What measures with the machine's lock, which one has at a time, and what looks for loads of other measurements.
    "measuring": (
        "tests/integration/measuring/test_sweep.py",
        "tests/integration/measuring/test_dag.py",
        "tests/integration/measuring/",
        "tests/experiments/machine/test_machine_lock.py",
        "tests/experiments/run/test_usage.py",
    ),
    # Everything on one broker: Spark's job, and runs on twins, which take no lock of the machine; then the wheel.
    "kafka": (
        "tests/spark/test_job.py",
        "tests/spark/test_checkpoint.py",
        "tests/integration/kafka/test_ingest.py",
        "tests/integration/kafka/",
        "tests/pipeline/ingest/test_sink.py",
        "tests/pipeline/broker/test_embedded.py",
        "tests/pipeline/bus/",
        "tests/integration/chains/test_wheel.py",
    ),
    # Chains that are killed, scaled and ended. Then the page, which is quiet at first, the stream seen from outside,
    # and the programs of the documents, on one chain. A chain that is up uses a tenth of a core: at most three are.
    "chains": (
        "tests/integration/chains/",
        "tests/integration/page/test_page.py",
        "tests/integration/page/test_page_moments.py",
        "tests/integration/page/test_sse_conformance.py",
        "tests/integration/page/test_client_matrix.py",
        "tests/integration/page/",
    ),
}
LONG = (
    "tests/integration/",
    "tests/spark/test_aggregation.py",
    "tests/dags/",
    "tests/experiments/campaign/",
    "tests/experiments/claims/",
    "tests/pipeline/supervisor/",
    "tests/test_commands.py",
    "tests/test_package.py",
)
"""What is in no group and takes long: it begins first, so that no process waits for another one at the end."""
ORDER = (*GROUPS, "")
SHARED = ("broker", "chain_up", "two_subscribers")
"""The fixtures that start a chain or a broker for a whole process."""
NICE = {"measuring": 0, "kafka": 2, "chains": 2, "": 6}
"""The niceness of each group's tests, and of the processes they start: the groups mostly wait, and what is in none
computes in the meantime.
"""


def group(nodeid: str) -> str:
    """The name of a test's group, empty for a test that is in none."""
    for name, paths in GROUPS.items():
        if nodeid.startswith(paths):
            return name
    # The bus contract's second run.
    return "kafka" if "[kafka" in nodeid else ""


def place(nodeid: str) -> tuple[int, int]:
    """Where a test stands in the order of all: that of GROUPS and, within a group, of its paths; then LONG."""
    name = group(nodeid)
    paths = [nodeid.startswith(path) for path in GROUPS.get(name, LONG)]
    return ORDER.index(name), paths.index(True) if True in paths else len(paths)


def missing() -> list[str]:
    """The paths of GROUPS and LONG that are not there: a file was moved."""
    return [path for paths in (*GROUPS.values(), LONG) for path in paths if not (REPOSITORY / path).exists()]


def started_twice(items: Iterable[pytest.Item]) -> dict[str, set[str]]:
    """What SHARED has that tests of several groups, or of a group and a file in none, ask for: each starts its own."""
    users: dict[str, set[str]] = {name: set() for name in SHARED}
    for item in items:
        for name in users.keys() & set(getattr(item, "fixturenames", ())):
            users[name].add(scope(item.nodeid))
    return {name: scopes for name, scopes in users.items() if len(scopes) > 1}


def scope(nodeid: str) -> str:
    """What runs in one process: the name of a test's group, or else its file."""
    return group(nodeid) or nodeid.partition("::")[0]


class Scheduling(LoadScopeScheduling):
    """Gives a process one group after another, or else one file after another."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)
