"""The reference campaigns: every run kept adds up, and the documents quote them as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from experiments import documents, run_files
from experiments.campaign import campaign_file

REPOSITORY = Path(__file__).resolve().parents[1]
REFERENCE = REPOSITORY / "reports" / "reference"
# The end-to-end latency is binned by the millisecond, so its mean is known to half of one.
RESOLUTION_S = 0.001
SIZE_MAX = 5_000_000

CAMPAIGNS = sorted(path.parent for path in REFERENCE.glob("*/campaign.json"))
RUNS = [path / "runs" / run.run for path in CAMPAIGNS for run in campaign_file.read(path).runs]


def summary(run: Path) -> dict[str, Any]:
    """Return a run's flat figures."""
    return run_files.summary(run)


def test_there_is_a_reference() -> None:
    """Nothing below is vacuous."""
    assert RUNS


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_hops_add_up_to_the_end_to_end_latency(run: Path) -> None:
    """The mean of each hop, added up, is the mean latency that the histogram has, to its resolution."""
    figures = summary(run)
    hops = [value for name, value in figures.items() if re.fullmatch(r"hop_.*_mean_ms", name)]
    assert len(hops) == 10
    assert sum(hops) / 1000 == pytest.approx(figures["e2e_mean_s"], abs=RESOLUTION_S)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_every_accepted_reaction_was_counted_once(run: Path) -> None:
    """Conservation is exact, in integers."""
    figures = summary(run)
    assert figures["counted"] == figures["accepted"] > 0
    assert not any(figures[name] for name in ("lost", "duplicated", "altered", "foreign", "unexplained"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_every_count_agrees_with_the_oracle(run: Path) -> None:
    """Each cell of each window is what the topic holds, and each representative what the policy says."""
    figures = summary(run)
    assert figures["oracle_equal"] == figures["oracle_cells"] > 0
    assert figures["offset_breaks"] == figures["representatives_wrong"] == 0


def test_the_reference_is_small() -> None:
    """No rows, no logs: a clone stays quick."""
    assert sum(path.stat().st_size for path in kept()) < SIZE_MAX


def kept() -> list[Path]:
    """Return the files of the reference that git keeps: a campaign made here has its rows beside them."""
    named = ("manifest.json", "verdict.json", "summary.json", "latency.hdr", "excess.hdr")
    files = [path for path in REFERENCE.rglob("*") if path.is_file()]
    return [path for path in files if "runs" not in path.relative_to(REFERENCE).parts or path.name in named]


def test_documents_have_their_generated_parts() -> None:
    """Settings, designs and figures in the documents are those of code and files."""
    assert documents.update(check=True) == [], "run `python -m experiments docs`"
