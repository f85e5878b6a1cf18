"""The design `smoke`, shortened, on the real chain: killed in the middle, started again, and its result read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.analysis import verdict
from experiments.campaign import design_file
from experiments.repository import DESIGNS
from tests.harness.machines import BUSY
from tests.harness.processes import is_gone
from tests.harness.waiting import until

pytestmark = pytest.mark.integration

# What a machine that runs other tests makes of these says nothing about a sweep.
TIMES = {"e2e_excess_p99_s", "headroom"}
# What is told of the design `smoke` differently, so that a run takes seconds. A slope of the lag needs longer.
SHORTER = {
    "trigger_s: 2": "trigger_s: 1",
    "warm_up_triggers: 5": "warm_up_triggers: 1",
    "measured_triggers: 8": "measured_triggers: 3",
    "  lag_slope_upper_share: 0.01\n": "",
}
# `experiments sweep` that tries each run once: how busy the machine is decides neither how many runs there are nor how
# long this takes.
ONCE = """
from experiments.campaign import state

state.TRIES = 1
from experiments.__main__ import main

main()
"""


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


@pytest.fixture
def smoke(tmp_path: Path) -> Path:
    """The design `smoke` with few and short windows."""
    text = (DESIGNS / "smoke.yaml").read_text(encoding="utf-8")
    for usual, shorter in SHORTER.items():
        assert usual in text
        text = text.replace(usual, shorter)
    path = tmp_path / "designs" / "smoke.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return path


def family_with_chain(sweep: int) -> list[int]:
    """Return every process below a sweep, or none while its run's chain has not started its stages, Spark included."""
    family = psutil.Process(sweep).children(recursive=True)
    for process in family:
        # It may have ended since.
        with suppress(psutil.NoSuchProcess):
            if process.cmdline()[1:3] == ["-m", "spark.job"]:
                return [one.pid for one in family]
    return []


@pytest.mark.timeout(600)
def test_smoke_killed_in_the_middle_completes_without_repeating_what_was_done(smoke: Path, tmp_path: Path) -> None:
    """The finished run is kept to the byte, the broken one made again; all counts are right, with figures and a page.

    The exit status follows from the verdicts: where other tests run, a run may be INVALID or miss an objective of time.
    """
    command = [sys.executable, "-c", ONCE, "sweep", str(smoke), "--reports", str(tmp_path)]
    log = tmp_path / "sweep.log"
    with log.open("wb") as written, subprocess.Popen(command, stderr=written) as first:

        def second_is_under_way() -> bool:
            assert first.poll() is None, log.read_text()
            state = state_of(tmp_path)
            return bool(state["runs"] and state["underway"])

        until(second_is_under_way, "a second run is under way", 200, poll_s=0.1)
        second = tmp_path / "smoke" / "runs" / state_of(tmp_path)["underway"]["run"]
        family = until(lambda: family_with_chain(first.pid), "its chain is starting", 100)
        first.send_signal(signal.SIGKILL)
    done = state_of(tmp_path)["runs"]
    before = (tmp_path / "smoke" / "runs" / done[0]["run"] / "summary.json").read_bytes()
    # No sweep is left to take its chain down: it ends by itself.
    until(lambda: all(map(is_gone, family)), "the run and the chain of the killed sweep have ended", 90)

    again = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    campaign = state_of(tmp_path)
    valid = [run for run in campaign["runs"] if run["valid"]]
    status = 0 if all(run["passed"] for run in valid) else 3
    assert {run["index"] for run in campaign["runs"]} == {0, 1}
    assert again.returncode == (status if {run["index"] for run in valid} == {0, 1} else 4), again.stderr
    assert_readable(again.stderr, "run ")
    assert campaign["runs"][0] == done[0]
    assert (tmp_path / "smoke" / "runs" / done[0]["run"] / "summary.json").read_bytes() == before
    assert [(one["run"], one["failed"]) for one in campaign["abandoned"]] == [(second.name, False)]
    assert [reason for run in campaign["runs"] for reason in run["reasons"] if not reason.startswith(BUSY)] == []
    assert campaign["ended"]

    page = Path(again.stdout.strip())
    assert page == tmp_path / "smoke" / "index.html"
    wanted = set(design_file.load(smoke).slos) | set(verdict.INTEGRITY)
    for run in campaign["runs"]:
        assert_readable((tmp_path / "smoke" / "runs" / run["run"] / "run.log").read_text(), "starting run.ipynb")
        judged = json.loads((tmp_path / "smoke" / "runs" / run["run"] / "verdict.json").read_text())
        assert {slo["key"] for slo in judged["slos"]} == wanted
        assert [slo["key"] for slo in judged["slos"] if not slo["passed"] and slo["key"] not in TIMES] == []
        # Without a figure: a window that came later than a run waits for it.
        assert all(slo["figure"] is not None for slo in judged["slos"] if slo["key"] != "e2e_excess_p99_s")
        assert run["run"] in page.read_text()
