"""The design `smoke` on the real chain: killed in the middle, started again, and every line of its result read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis import verdict
from experiments.campaign import design_file
from experiments.repository import DESIGNS

pytestmark = pytest.mark.integration

SMOKE = DESIGNS / "smoke.yaml"


def until(true: Callable[[], bool], what: str, deadline_s: float) -> None:
    """Wait for a condition."""
    end_s = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end_s, f"{what}: not within {deadline_s:g} s"
        time.sleep(0.1)


def noted(reports: Path) -> dict[str, Any]:
    """Return what the campaign knows of itself."""
    path = reports / "smoke" / "campaign.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"runs": [], "underway": None}


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.timeout(600)
def test_smoke_killed_in_the_middle_completes_without_repeating_what_was_done(tmp_path: Path) -> None:
    """The finished run is kept to the byte, the broken one made again; then all is VALID, with figures and a page."""
    command = [sys.executable, "-m", "experiments", "sweep", str(SMOKE), "--reports", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        until(lambda: bool(noted(tmp_path)["runs"] and noted(tmp_path)["underway"]), "a second run under way", 300)
        second = tmp_path / "smoke" / "runs" / noted(tmp_path)["underway"]["run"]
        until((second / "chain" / "ready.json").exists, "its chain is up", 200)
        chain_pid = int(json.loads((second / "chain" / "ready.json").read_text())["pid"])
        first.send_signal(signal.SIGKILL)
    done = noted(tmp_path)["runs"]
    before = (tmp_path / "smoke" / "runs" / done[0]["run"] / "summary.json").read_bytes()
    # No sweep is there any more to take its chain down: it ends by itself.
    until(lambda: gone(chain_pid), "the chain of the killed sweep has ended", 90)

    again = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    campaign = noted(tmp_path)
    assert campaign["runs"][0] == done[0]
    assert (tmp_path / "smoke" / "runs" / done[0]["run"] / "summary.json").read_bytes() == before
    assert [(one["run"], one["failed"]) for one in campaign["abandoned"]] == [(second.name, False)]
    assert sorted(run["index"] for run in campaign["runs"] if run["valid"]) == [0, 1]
    assert campaign["ended"]

    page = Path(again.stdout.strip())
    assert page == tmp_path / "smoke" / "index.html"
    wanted = set(design_file.load(SMOKE).slos) | set(verdict.INTEGRITY)
    for run in campaign["runs"]:
        judged = json.loads((tmp_path / "smoke" / "runs" / run["run"] / "verdict.json").read_text())
        assert {slo["key"] for slo in judged["slos"]} == wanted
        assert all(slo["figure"] is not None for slo in judged["slos"])
        assert run["run"] in page.read_text()
