"""A reduced set of the kept designs, and what is said of the published intervals."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from experiments.campaign import campaign_file, design_file, keep
from experiments.claims import reproduce as reproductions
from experiments.claims.reproduce import Compared, minutes_of, reduced, reproduce
from experiments.repository import DESIGNS
from experiments.stats.capacity import Capacity
from experiments.synthetic.rows import write_campaign
from pipeline.errors import SettingError


def design(name: str) -> design_file.Design:
    """A design that comes with the project."""
    return design_file.unrehearsed(DESIGNS / f"{name}.yaml")


def test_designs_are_reduced_to_the_minutes() -> None:
    """Blocks and probes by the same share; enough minutes change nothing but the need for intervals."""
    both = [design("hundred"), design("capacity_rows")]
    whole = reduced(both, 1000)
    assert [whole[0].blocks, whole[1].search] == [6, both[1].search]
    for minutes in (15, 20, 25):
        smaller = reduced(both, minutes)
        assert sum(map(minutes_of, smaller)) <= minutes
        assert smaller[0].blocks in range(1, 6)
        assert smaller[1].search is not None
        assert smaller[1].search.probes in range(6, 12)


def test_minutes_that_are_no_number_are_refused() -> None:
    """A set without an end is not started."""
    with pytest.raises(SettingError, match="--minutes is nan: the smallest set takes"):
        reduced([design("hundred")], math.nan)


def test_too_few_minutes_are_refused() -> None:
    """With the number that is needed."""
    with pytest.raises(SettingError, match=r"--minutes is 2: the smallest set takes \d+ minutes"):
        reduced([design("hundred")], 2)


def test_a_reduced_design_can_be_swept() -> None:
    """Its file is a design, although it has fewer blocks than an interval needs."""
    for name in ("hundred", "capacity_rows"):
        smaller = reduced([design(name)], 10)[0]
        assert design_file.parse(design_file.to_yaml(smaller), "x.yaml") == smaller


@pytest.mark.parametrize(
    ("least", "most", "holds"),
    [(1.0, 1.1, True), (1.25, 2.0, False), (0.5, 0.85, False), (math.nan, math.nan, None), (0.0, math.inf, True)],
)
def test_an_interval_holds_where_the_runs_reach_it(least: float, most: float, holds: bool | None) -> None:
    """Without a valid run nothing is said."""
    assert Compared("c", "", "f", 1.0, 0.9, 1.2, 1.0, least, most, 2).holds is holds


@dataclass
class Sweeps:
    """Stands for sweeps: each leaves a synthetic campaign of two runs."""

    designs: list[design_file.Design]

    def __call__(self, path: Path, reports: Path, name: str, until_s: float) -> None:
        """Write the campaign that the design at `path` would give."""
        assert 0 < until_s - time.monotonic() <= 360, "of six minutes"
        self.designs.append(design_file.load(path))
        write_campaign(reports / name, runs=2)


def test_published_intervals_are_compared_with_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each figure with an interval has a row; the machines of both are named; the result is a file."""
    write_campaign(tmp_path / "made", runs=6)
    kept = keep.keep(tmp_path / "made", tmp_path)
    state = campaign_file.read(kept)
    real = msgspec.structs.replace(design("hundred"), levels=[{"rate_per_s": 20.0}])
    campaign_file.write(kept, msgspec.structs.replace(state, design=real))
    sweeps = Sweeps([])
    monkeypatch.setattr(reproductions, "sweep", sweeps)
    found = reproduce(tmp_path, 6)
    assert [one.blocks for one in sweeps.designs] == [2]
    # So small a run has no 99th percentile.
    figures = {"tap to screen, median, s", "above the floor, median, s", "micro-batch, p95, s"}
    assert {one.figure for one in found.compared} == figures
    assert all(one.holds and one.runs == 2 for one in found.compared)
    assert found.machines == dict.fromkeys(("published made", "here"), "Synthetic, 2 cores, Linux")
    lines = list(found.lines())
    assert lines[1].endswith("  2  yes")
    assert lines[-1] == "here: Synthetic, 2 cores, Linux"
    written = json.loads((tmp_path / "reproduction" / "reproduction.json").read_text())
    assert len(written["intervals"]) == len(figures)


def test_a_capacity_that_was_not_measured_here_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few valid probes bound no capacity, and are no agreement."""
    theirs = Capacity(4000.0, 3500.0, 4500.0, 0.1, 12, 6, ended=True)
    ours = Capacity(None, None, None, None, 0, 0, ended=True)
    read = {"published": SimpleNamespace(capacity=theirs), "here": SimpleNamespace(capacity=ours)}
    monkeypatch.setattr(reproductions.capacity, "read", lambda folder: read[folder.name])
    state: Any = SimpleNamespace(searches=True, design=SimpleNamespace(factors=("rate_per_s",)))
    (found,) = reproductions.compare(Path("published"), state, Path("here"))
    assert found.holds is None


def test_nothing_kept_is_an_error(tmp_path: Path) -> None:
    """With the remedy."""
    with pytest.raises(SettingError, match="has no kept campaign: there is nothing to reproduce"):
        reproduce(tmp_path, 40)
