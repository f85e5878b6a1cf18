"""Notebooks that need no chain: by nbval as in a CI, and by papermill."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import papermill
import pytest

from experiments.run import notebook
from experiments.run.kernel import LocalKernel
from experiments.synthetic import campaign
from pipeline.errors import SettingError
from tests.harness.paths import REPOSITORY
from tests.harness.processes import NBVAL, run_to_end

pytestmark = pytest.mark.integration

NOTEBOOKS = REPOSITORY / "notebooks"


def test_sweep_shows_a_capacity_with_its_interval_and_curve(tmp_path: Path) -> None:
    """sweep.ipynb, executed on a search, says the capacity with its interval and draws its curve."""
    full = {"shift_s": 5.0, "cpu_share_spark": 1.4, "cpu_share_machine": 2.0}
    campaign.write_synthetic(
        tmp_path / "capacity",
        levels=[{"rate_per_s": load} for load in (1000, 1600, 2560, 4096, 2800, 3300, 2300, 3000)],
        search={"factor": "rate_per_s", "least": 1000, "most": 20000, "probes": 8},
        truth=lambda factors: full if factors["rate_per_s"] > 3000 else {},
    )
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / "sweep.ipynb",
        executed,
        {"campaign": str(tmp_path / "capacity")},
        progress_bar=False,
        kernel_name="python3",
        kernel_manager_class=LocalKernel,
        cwd=str(NOTEBOOKS.parent),
    )
    cells = {cell.id: str(cell.get("outputs")) for cell in nbformat.read(executed, as_version=4).cells}
    findings, *rest = [
        outputs for outputs in cells.values() if "in nine runs of ten" in outputs and "<svg" not in outputs
    ]
    assert rest == []
    # The truth is 3,000.
    assert re.search(r"at 2,\d{3}\S*reactions/s \(95\S*% interval 2,\d{3} to 3,\d{3}\)", findings)
    assert "probes above it passed" in findings
    shown = str(list(cells.values()))
    assert "Probes by load and outcome" in shown
    assert "cpu_share_spark" in shown


def test_validity_limits_reads_its_table() -> None:
    """validity_limits.ipynb needs no chain: every cell runs on the runs that are kept with it."""
    checked = run_to_end([*NBVAL, str(NOTEBOOKS / "validity_limits.ipynb")], timeout_s=280)
    assert checked.returncode == 0, checked.stdout


def test_an_unknown_parameter_is_named() -> None:
    """A parameter the notebook does not have is refused before anything starts, with those it has."""
    with pytest.raises(SettingError, match=r"no parameter 'user'.*users"):
        notebook.checked(NOTEBOOKS / "run.ipynb", {"user": "5"})


def test_a_parameter_of_the_wrong_type_is_named() -> None:
    """A value that cannot be cast to the default's type is refused with both."""
    with pytest.raises(SettingError, match=r"users is 'many': give a whole number"):
        notebook.checked(NOTEBOOKS / "run.ipynb", {"users": "many"})


@pytest.mark.timeout(600)
def test_nbval_passes_on_the_policies() -> None:
    """representatives.ipynb needs no chain, and gives the very tables and findings that are committed with it."""
    checked = run_to_end([*NBVAL, str(NOTEBOOKS / "representatives.ipynb")], timeout_s=280)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.timeout(600)
def test_entries_that_are_not_one_emoji_are_left_out(tmp_path: Path) -> None:
    """Given a recording, the notebook says how many of its entries are no emoji, and keeps its figures."""
    trace = tmp_path / "trace.csv"
    typed = ["😂", "❤", "👍🏽", "🇫🇷", "boo", "👨‍👩‍👧"] * 5
    rows = [f"{700 * number},fan,{emoji}" for number, emoji in enumerate(typed)]
    trace.write_text("\n".join(["offset_ms,user_id,emoji_type", *rows]) + "\n", encoding="utf-8")
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / "representatives.ipynb",
        executed,
        {"trace": str(trace), "run_dir": str(tmp_path)},
        progress_bar=False,
        kernel_name="python3",
        kernel_manager_class=LocalKernel,
        cwd=str(tmp_path),
    )
    said = executed.read_text(encoding="utf-8")
    assert "5 entries are not one emoji" in said
    assert "The recorded audience has 25 reactions of five types" in said
    assert (tmp_path / "course.svg").read_text().startswith("<svg")
    assert {"policies.csv", "course.csv"} <= {path.name for path in tmp_path.iterdir()}
