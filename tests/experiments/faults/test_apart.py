"""Scenarios in processes of their own: their outcomes, their failures, and that none outlives the suite."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from experiments.faults.apart import Apart, side_by_side
from experiments.faults.carry_out import ON_ONE_CHAIN, ScenarioOutcome, grouped
from experiments.faults.scenarios import catalogue
from pipeline.errors import EmoStreamError
from tests.harness.processes import is_gone
from tests.harness.waiting import until

# In place of the suite: it prints what it was given, and then does what the scenario's name says.
STAND_IN = """
import json, os, sys, time
print(os.getpid(), flush=True)
print(*sys.argv[1:], flush=True)
file = sys.argv[sys.argv.index("--outcomes") + 1]
if sys.argv[-1] == "waits":
    time.sleep(600)
if sys.argv[-1] == "breaks":
    raise SystemExit("the chain did not start")
with open(file, "w") as outcomes:
    json.dump([{"name": sys.argv[-1], "seed": 3, "took_s": 1.5, "sent": 9, "accepted": 8, "counted": 8}], outcomes)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a package that stands in for the suite."""
    package = tmp_path / "experiments" / "faults"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN, encoding="utf-8")
    return tmp_path


def test_outcomes_and_lines_are_returned(folder: Path) -> None:
    """A process is told its scenarios, its seed and whether to shorten them; what it prints is said as well."""
    said: list[str] = []
    with Apart() as apart:
        done = apart.run(["one", "two"], 3, full=True, folder=folder, say=said.append)
        short = apart.run(["one"], 1, full=False, folder=folder)
    assert done.outcomes == [ScenarioOutcome("two", 3, 1.5, 9, 8, 8)]
    assert said == done.lines
    assert said[1].startswith("--seed 3 --outcomes ")
    assert said[1].endswith("--full one two")
    assert "--full" not in short.lines[1]


def test_scenarios_that_were_not_carried_out_are_an_error(folder: Path) -> None:
    """It names them, and ends with what was printed last."""
    with Apart() as apart, pytest.raises(EmoStreamError, match=r"breaks \(seed 2\) ended with 1:(.|\n)*did not start"):
        apart.run(["breaks"], 2, full=False, folder=folder)


def test_the_first_error_ends_what_runs(folder: Path) -> None:
    """A process whose scenario still goes on is gone when the error is raised."""
    begun = threading.Event()
    printed: list[str] = []

    def say(line: str) -> None:
        printed.append(line)
        begun.set()

    def waits(apart: Apart) -> object:
        return apart.run(["waits"], 1, full=False, folder=folder, say=say)

    def fails(_: Apart) -> object:
        until(begun.is_set, "the other one has begun", 30)
        raise EmoStreamError("the disk is full")

    with pytest.raises(EmoStreamError, match="the disk is full"):
        side_by_side([waits, fails, waits], 2)
    pids = [int(line) for line in printed if line.isdecimal()]
    assert pids
    assert all(map(is_gone, pids))


def test_each_scenario_is_in_one_group() -> None:
    """One that needs a chain of its own is alone; the others share chains."""
    scenarios = list(catalogue().values())
    groups = grouped(scenarios)
    assert sorted(each.name for group in groups for each in group) == sorted(each.name for each in scenarios)
    assert all(len(group) == 1 for group in groups if any(each.alone or each.settings for each in group))
    assert max(map(len, groups)) == ON_ONE_CHAIN
