"""The notebooks run, by nbval as in a CI and by papermill, on a chain that is up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from tests.harness import machines
from tests.harness.paths import REPOSITORY
from tests.harness.processes import NBVAL, run_to_end

pytestmark = pytest.mark.integration

NOTEBOOKS = REPOSITORY / "notebooks"
# The tag of a cell whose output is compared; it also needs `keep_output`, which nbstripout goes by.
CHECKED = "nbval-check-output"
# What makes a run short enough to be checked; everything else stays as people find it.
SHORT = {"users": 10, "rate_per_s": 40.0, "clients": 4, "warm_up_triggers": 1, "measured_triggers": 3}
# The offset of the first reaction of a recording that was cut out of a longer one.
CUT_MS = 2_499_477


def checked_by_nbval(name: str, parameters: dict[str, object], folder: Path) -> None:
    """Run a notebook with these parameters under nbval, where a proxy is set that refuses everything."""
    short = folder / name
    given = {**parameters, "run_dir": str(folder / "run")}
    papermill.execute_notebook(
        NOTEBOOKS / name, short, given, prepare_only=True, progress_bar=False, kernel_name="python3"
    )
    with machines.refusing_proxy() as (proxy, asked):
        checked = run_to_end([*NBVAL, str(short)], timeout_s=280, **proxy)
    assert checked.returncode == 0, checked.stdout
    assert asked == []


@pytest.mark.timeout(600)
def test_nbval_passes_on_a_short_run(ready_file: Path, tmp_path: Path) -> None:
    """Every cell of run.ipynb executes under nbval, and the cells that are checked give what they should."""
    checked_by_nbval("run.ipynb", {**SHORT, "attach": str(ready_file)}, tmp_path)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.timeout(600)
def test_nbval_passes_on_a_short_replay(ready_file: Path, tmp_path: Path) -> None:
    """run.ipynb replays a small recording cut out of a longer one, which is sent and counted completely."""
    recorded = tmp_path / "recorded.csv"
    # One at a time and three at once, until well after the ten seconds that are replayed, at twice its speed.
    rows = [
        f"{CUT_MS + ms},user-{ms % 9},{'🎉❤😂'[ms % 3]}"
        for ms in range(0, 20_000, 70)
        for _ in range(1 + 2 * (ms % 4 == 0))
    ]
    recorded.write_text("\n".join(["offset_ms,user_id,emoji_type", *rows, ""]), encoding="utf-8")
    short = {name: SHORT[name] for name in ("clients", "warm_up_triggers", "measured_triggers")}
    replay = {"arrivals": "trace", "trace": str(recorded), "speed": 2.0}
    checked_by_nbval("run.ipynb", {**short, **replay, "attach": str(ready_file)}, tmp_path)
    assert (tmp_path / "run" / "report.html").exists()
    plan, topic = (pd.read_parquet(tmp_path / "run" / f"{name}.parquet") for name in ("plan", "topic"))
    assert len(plan) == sum(int(row.split(",")[0]) < CUT_MS + 10_000 for row in rows)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["trace_replayed_from_ms"] == CUT_MS
    assert Counter(topic["user_id"]) == Counter(plan["user_id"])


@pytest.mark.timeout(600)
def test_quickstart_ends_by_itself_with_every_reaction_counted(ready_file: Path, tmp_path: Path) -> None:
    """Every cell of quickstart.ipynb executes under nbval; it stops after the windows asked for."""
    parameters = {"users": 10, "rate_per_s": 40.0, "windows": 3, "attach": str(ready_file)}
    checked_by_nbval("quickstart.ipynb", parameters, tmp_path)


@pytest.mark.timeout(600)
def test_nbval_passes_on_a_short_look(ready_file: Path, tmp_path: Path) -> None:
    """Every cell of explore.ipynb executes without a hand on it, and all that it sent has arrived when it ends."""
    parameters = {"users": 10, "rate_per_s": 40.0, "watch_s": 7.0, "attach": str(ready_file)}
    checked_by_nbval("explore.ipynb", parameters, tmp_path)


def test_only_checked_outputs_are_committed() -> None:
    """Only outputs that nbval compares are committed: a diff then shows changes of the source."""
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            checked = CHECKED in cell.metadata.get("tags", [])
            assert checked or not cell.get("outputs"), f"{path.name} {cell.id}: clear its outputs (nbstripout)"
            assert not checked or cell.get("outputs"), f"{path.name} {cell.id}: there is nothing to compare"
