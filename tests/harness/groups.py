"""How `make test` spreads the tests over processes: tests of a group, else of a file, run in one of them."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from tests.harness.paths import REPOSITORY

# The groups begin in this order, and within a group the tests. A folder stands for its files that are not named before.
GROUPS = {
    # What measures, and what a measurement takes for the load of somebody else: the machine has one at a time.
    "measuring": (
        "tests/integration/measuring/test_sweep.py",
        "tests/integration/measuring/test_dag.py",
        "tests/integration/measuring/",
        "tests/experiments/load/",
        "tests/experiments/machine/test_machine_lock.py",
        "tests/experiments/run/test_usage.py",
    ),
    # Chains that are killed, scaled and ended.
    "chains": ("tests/integration/chains/",),
    # The page, which is quiet at first, the stream seen from outside, and the programs of the documents, on one chain.
    "page": (
        "tests/integration/page/test_page.py",
        "tests/integration/page/test_page_moments.py",
        "tests/integration/page/test_sse_conformance.py",
        "tests/integration/page/test_client_matrix.py",
        "tests/integration/page/",
    ),
    # Everything on one broker, Spark's job included.
    "kafka": ("tests/spark/test_job.py", "tests/integration/kafka/", "tests/pipeline/ingest/test_sink.py"),
}
ORDER = (*GROUPS, "")
FIRST = "measuring"
NICE = 5
"""The niceness of every other group's tests, and of the processes they start."""


def group(nodeid: str) -> str:
    """The name of a test's group, empty for a test that is in none."""
    for name, paths in GROUPS.items():
        if nodeid.startswith(paths):
            return name
    # The bus contract's second run.
    return "kafka" if "[kafka" in nodeid or "tests/pipeline/bus/test_bus.py" in nodeid else ""


def place(nodeid: str) -> tuple[int, int]:
    """Where a test stands in the order of all: that of GROUPS and, within a group, of its paths."""
    name = group(nodeid)
    paths = [nodeid.startswith(path) for path in GROUPS.get(name, ())]
    return ORDER.index(name), paths.index(True) if True in paths else len(paths)


def missing() -> list[str]:
    """The paths of GROUPS that are not there: a file was moved."""
    return [path for paths in GROUPS.values() for path in paths if not (REPOSITORY / path).exists()]


class Scheduling(LoadScopeScheduling):
    """Gives a process one group after another, or else one file after another."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid) or nodeid.partition("::")[0]
