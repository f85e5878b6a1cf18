"""The arbiter while it starts: stages that die at once, and requests to stop. Every stage is a small shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from circus.process import DEAD_OR_ZOMBIE
from circus.watcher import Watcher

from pipeline.supervisor.arbiter import StageWatcher
from tests.harness.processes import kill_family
from tests.harness.waiting import until

STAGES = 30
# It looks for dead stages many times while it starts. Every stage logs its start; `$0` is its name.
PROGRAM = """
import sys
from pipeline import logs
from pipeline.supervisor.arbiter import ChainArbiter, StageWatcher
from pipeline.supervisor.plan import Stage

folder, log, first, count = sys.argv[1:]

def watcher_of(stage):
    then = first if stage.name == "stage-0" else "exec sleep 600"
    watcher = StageWatcher.load_from_config({
        "name": stage.name, "cmd": "/bin/sh", "args": ["-c", "echo $0 >> $1; " + then, stage.name, log],
        "copy_env": True, "graceful_timeout": 10.0,
    })
    watcher.may_start = lambda: True
    return watcher

logs.configure("arbiter", "warning")
plan = [Stage(f"stage-{n}", "") for n in range(int(count))]
ChainArbiter(
    plan, watcher_of, endpoint=f"ipc://{folder}/control", pubsub_endpoint=f"ipc://{folder}/events", check_delay=0.002
).start()
"""


class Started:
    """An arbiter in a separate process, and the starts that its stages have logged."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def starts(self) -> list[str]:
        """Return the name of each process that has started, in order."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def end(self) -> str:
        """Ask it to stop; return what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, errors
        return errors


@contextmanager
def started(tmp_path: Path, first: str) -> Iterator[Started]:
    """Yield an arbiter that starts STAGES stages, of which the first runs `first`."""
    log = tmp_path / "starts"
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="emostream-") as folder:
        line = [sys.executable, "-c", PROGRAM, folder, str(log), first, str(STAGES)]
        with subprocess.Popen(line, env=os.environ, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield Started(process, log)
            finally:
                if process.poll() is None:
                    kill_family(process)


@pytest.mark.parametrize("first", ["exit 1", "kill -KILL $$"])
def test_stage_that_dies_during_the_start_is_restarted_without_a_traceback(tmp_path: Path, first: str) -> None:
    """The regular look for dead stages waits until all have started; the other stages start once."""
    with started(tmp_path, first) as arbiter:
        until(lambda: arbiter.starts().count("stage-0") > 2, "the first stage has been restarted twice")
        until(lambda: len(set(arbiter.starts())) == STAGES, "all stages have started")
        assert arbiter.end() == ""
    assert all(arbiter.starts().count(f"stage-{n}") == 1 for n in range(1, STAGES))


def test_request_to_stop_during_the_start_is_carried_out(tmp_path: Path) -> None:
    """The stages that have started are stopped, and no further one is started."""
    with started(tmp_path, "exec sleep 600") as arbiter:
        until(arbiter.starts, "the first stage has started", poll_s=0.0005)
        assert arbiter.end() == ""
    assert len(set(arbiter.starts())) == len(arbiter.starts())


def test_exit_code_of_a_process_that_died_between_two_looks_is_kept() -> None:
    """Circus forgets such a process without calling any hook."""
    reaped = []
    watcher = StageWatcher("stage", "true", numprocesses=0)
    watcher._status = "active"
    watcher.processes = {7: SimpleNamespace(pid=7, status=DEAD_OR_ZOMBIE)}
    watcher.reap_process = lambda pid: reaped.append(watcher.processes.pop(pid).pid)
    watcher.manage_processes()
    assert reaped == [7]


def test_stage_that_waits_is_started_at_a_later_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Circus would leave a stage stopped that may not start; one that waits is asked about again."""
    spawned: list[int | None] = []
    monkeypatch.setattr(Watcher, "spawn_process", lambda self, recovery_wid=None: spawned.append(recovery_wid))
    watcher = StageWatcher("stage", "true", numprocesses=0)
    early, allowed = [True, True, False], True
    watcher.may_start = lambda: allowed
    watcher.waits = lambda: early.pop(0)
    assert [watcher.spawn_process() for _ in range(3)] == [True] * 3
    assert len(spawned) == 1
    allowed = False
    assert watcher.spawn_process() is False
