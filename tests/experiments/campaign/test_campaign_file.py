"""campaign.json: a campaign that contradicts itself is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.campaign import campaign_file
from experiments.run_files import RunFileError
from experiments.synthetic.campaign import write_synthetic

Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state["runs"].append(state["runs"][0]), r"`runs` has \S+ twice"),
        (lambda state: state["order"].clear(), r"has index \d+, which `order` does not have"),
        (lambda state: state["runs"][0].update(level="x"), r"has level 'x', and `order` has '.+' at index \d+"),
    ],
)
def test_contradicting_campaign_is_refused(tmp_path: Path, change: Change, fault: str) -> None:
    """A run twice, and a run or level that the order does not have, are named with the file."""
    write_synthetic(tmp_path, blocks=1)
    path = tmp_path / "campaign.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    change(state)
    path.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(RunFileError, match=f"campaign.json contradicts itself: .*{fault}"):
        campaign_file.read(tmp_path)
