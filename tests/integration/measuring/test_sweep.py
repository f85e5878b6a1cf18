"""The design `smoke` on the real chain: killed in the middle, started again, and every line of its result read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis import verdict
from experiments.campaign import design_file
from experiments.repository import DESIGNS
from tests.harness.processes import is_gone, module
from tests.harness.waiting import until

pytestmark = pytest.mark.integration

SMOKE = DESIGNS / "smoke.yaml"


def state_of(reports: Path) -> dict[str, Any]:
    """Return the campaign's state."""
    path = reports / "smoke" / "campaign.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"runs": [], "underway": None}


def assert_readable(log: str, first: str) -> None:
    """Check the progress in a log: lines with the time of day, and none besides; at most one for every few seconds."""
    lines = log.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d +\S", line) for line in lines), log
    assert lines[0][9:].startswith(first)
    assert lines[-1][9:].startswith("done after ")
    assert "\r" not in log
    assert len(lines) < 60


@pytest.mark.timeout(600)
def test_smoke_killed_in_the_middle_completes_without_repeating_what_was_done(tmp_path: Path) -> None:
    """The finished run is kept to the byte, the broken one made again; then all is VALID, with figures and a page."""
    command = module("experiments", "sweep", str(SMOKE), "--reports", str(tmp_path))
    log = tmp_path / "sweep.log"
    with log.open("wb") as written, subprocess.Popen(command, stderr=written) as first:

        def second_is_under_way() -> bool:
            assert first.poll() is None, log.read_text()
            state = state_of(tmp_path)
            return bool(state["runs"] and state["underway"])

        until(second_is_under_way, "a second run is under way", 300, poll_s=0.1)
        second = tmp_path / "smoke" / "runs" / state_of(tmp_path)["underway"]["run"]
        until((second / "chain" / "ready.json").exists, "its chain is up", 200)
        chain_pid = int(json.loads((second / "chain" / "ready.json").read_text())["pid"])
        first.send_signal(signal.SIGKILL)
    done = state_of(tmp_path)["runs"]
    before = (tmp_path / "smoke" / "runs" / done[0]["run"] / "summary.json").read_bytes()
    # No sweep is left to take its chain down: it ends by itself.
    until(lambda: is_gone(chain_pid), "the chain of the killed sweep has ended", 90)

    again = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    assert_readable(again.stderr, "run ")
    campaign = state_of(tmp_path)
    assert campaign["runs"][0] == done[0]
    assert (tmp_path / "smoke" / "runs" / done[0]["run"] / "summary.json").read_bytes() == before
    assert [(one["run"], one["failed"]) for one in campaign["abandoned"]] == [(second.name, False)]
    assert sorted(run["index"] for run in campaign["runs"] if run["valid"]) == [0, 1]
    assert campaign["ended"]

    page = Path(again.stdout.strip())
    assert page == tmp_path / "smoke" / "index.html"
    wanted = set(design_file.load(SMOKE).slos) | set(verdict.INTEGRITY)
    for run in campaign["runs"]:
        assert_readable((tmp_path / "smoke" / "runs" / run["run"] / "run.log").read_text(), "starting run.ipynb")
        judged = json.loads((tmp_path / "smoke" / "runs" / run["run"] / "verdict.json").read_text())
        assert {slo["key"] for slo in judged["slos"]} == wanted
        assert all(slo["figure"] is not None for slo in judged["slos"])
        assert run["run"] in page.read_text()
