"""notebooks/capacity.ipynb, executed on a synthetic campaign."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill

from experiments.run import notebook
from experiments.synthetic import campaign

NOTEBOOK = Path(__file__).resolve().parents[4] / "notebooks" / "capacity.ipynb"
SEARCH = {"factor": "rate_per_s", "start": 1000, "growth": 1.6, "most": 20000, "resolution": 0.15}


def test_the_notebook_shows_interval_and_limit(tmp_path: Path):
    """Executed by papermill it says the interval and the limiting stage in words and draws the staircase."""
    levels = [{"rate_per_s": load} for load in (1000, 1600, 2560, 4096)]
    campaign.write_synthetic(
        tmp_path / "capacity",
        levels=levels,
        search=SEARCH,
        truth=lambda factors: {"shift_s": 5.0, "cpu_share_spark": 1.4} if factors["rate_per_s"] > 3000 else {},
    )
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        str(NOTEBOOK),
        str(executed),
        {"campaign": str(tmp_path / "capacity")},
        cwd=str(NOTEBOOK.parent.parent),
        progress_bar=False,
        kernel_name="python3",
        kernel_manager_class=notebook.LocalKernel,
    )
    shown = str([cell.get("outputs") for cell in nbformat.read(executed, as_version=4).cells])
    assert "2,560" in shown
    assert "4,096" in shown
    assert "Spark" in shown
    assert "<svg" in shown
    assert notebook.checked(NOTEBOOK, {"campaign": "x"}) == {"campaign": "x"}
