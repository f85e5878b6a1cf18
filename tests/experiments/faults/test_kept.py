"""Outcomes of a suite that was cut off: kept for the same code, and carried out once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.faults import suite
from experiments.faults.apart import Apart, Done
from experiments.faults.carry_out import ScenarioOutcome
from experiments.faults.kept import Kept
from experiments.faults.scenarios import catalogue
from pipeline.errors import EmoStreamError

OF = {"commit": "abc", "diff_sha256": None}
ONE, OTHER = (
    ScenarioOutcome("one", 1, 1.5, 9, 8, 8, ["a leak"]),
    ScenarioOutcome("one", 2, 1.0, 9, 9, 9, figures={"x": 2}),
)


def test_outcomes_are_found_again(tmp_path: Path) -> None:
    """With all that they say, those that failed as well; each once, by name and seed."""
    path = tmp_path / "reports" / "faults.json"
    Kept(path, OF).add([ONE])
    kept = Kept(path, OF)
    kept.add([OTHER])
    kept = Kept(path, OF)
    assert len(kept) == 2
    assert (kept.outcomes(["one", "two"], 1), kept.outcomes(["one"], 2)) == ([ONE], [OTHER])
    kept.forget()
    assert len(Kept(path, OF)) == 0


def test_outcomes_of_other_code_are_none(tmp_path: Path) -> None:
    """One changed line may be what a scenario is about."""
    path = tmp_path / "faults.json"
    Kept(path, OF).add([ONE])
    kept = Kept(path, OF | {"diff_sha256": "def"})
    kept.add([OTHER])
    assert Kept(path, OF | {"diff_sha256": "def"}).outcomes(["one"], 1) == []


def test_what_is_kept_is_not_carried_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite ends at the second of its processes; the next one begins with that."""
    scenarios = [each for each in catalogue(full=False).values() if each.alone][:3]
    first, second, third = (each.name for each in scenarios)
    fails, carried_out = [second], list[str]()

    def run(_: Apart, names: list[str], seed: int, **_kept: Any) -> Done:
        carried_out.extend(names)
        if set(names) & set(fails):
            raise EmoStreamError("cut off")
        return Done([ScenarioOutcome(name, seed, 1.0, 1, 1, 1) for name in names], [])

    monkeypatch.setattr(suite.Apart, "run", run)
    path = tmp_path / "faults.json"

    def outcomes() -> list[str]:
        found = suite.with_seeds(scenarios, [1], full=False, at_a_time=1, say=print, kept=Kept(path, OF))
        return [each.name for each in found]

    with pytest.raises(EmoStreamError, match="cut off"):
        outcomes()
    fails.clear()
    assert outcomes() == [first, second, third]
    assert carried_out.count(first) == 1
