"""A finished run in a directory, made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments import files
from experiments.analysis.analyse import analyse
from experiments.report.pages import write_json
from experiments.synthetic.run import make_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run in a campaign: its frames, its manifest, and its summary."""
    run = make_run(rate_per_s=6.0, clients=3, measured_triggers=3)
    place = tmp_path_factory.mktemp("second") / "campaign" / "runs" / "20261123T093000"
    place.mkdir(parents=True)
    for name, frame in run.frames.items():
        files.to_parquet(frame, place / f"{name}.parquet")
    files.write_text(place / "manifest.json", json.dumps(run.manifest | {"parameters": run.parameters}))
    write_json(place / "summary.json", analyse(run.frames, run.parameters, run.manifest).summary)
    return place


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to do harm to, in a campaign of its own."""
    return Path(shutil.copytree(finished, tmp_path / "campaign" / "runs" / finished.name))
