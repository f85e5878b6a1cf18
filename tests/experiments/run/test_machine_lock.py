"""One measurement at a time: the second is refused by name, a run of the holder's own goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.run import machine_lock
from pipeline.errors import EmoStreamError

HOLD = """
import sys
from pathlib import Path
from experiments.run.machine_lock import alone
with alone("The sweep of x.yaml", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TRY = """
import sys
from pathlib import Path
from experiments.run.machine_lock import alone
with alone("a run", Path(sys.argv[1])):
    print("in")
"""


def test_second_measurement_names_the_holder_of_the_machine(tmp_path: Path) -> None:
    """It names what the other does and its process, and may begin when that has ended."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = rf"The sweep of x\.yaml \(process {holder.pid}\) is measuring"
        with pytest.raises(EmoStreamError, match=said), machine_lock.alone("a run", tmp_path):
            pytest.fail("two measurements at once")
        holder.kill()
    with machine_lock.alone("a run", tmp_path):
        pass


def test_a_run_uses_the_lock_of_its_sweep(tmp_path: Path) -> None:
    """A process below the holder's is the holder's own."""
    with machine_lock.alone("a sweep", tmp_path):
        inner = subprocess.run(
            [sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
        )
    assert inner.stdout == "in\n"


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where its folder should be, say."""
    (tmp_path / "cache").write_text("")
    with (
        pytest.raises(EmoStreamError, match=r"cache/measuring\.lock could not be written: File exists: fix that"),
        machine_lock.alone("a run", tmp_path / "cache"),
    ):
        pytest.fail("measured without a lock")


def test_a_load_generator_is_known_by_its_command() -> None:
    """A load of ours or Locust, as a module or by its console script; an editor with a file of that name is not one."""
    commands = {
        1: ["python", "-m", "experiments.load", "plan.parquet"],
        2: ["python", "-m", "locust", "-f", "x.py"],
        3: ["vi", "experiments/load.py"],
        4: ["python", "-m", "http.server"],
        5: [],
        6: ["/opt/venv/bin/python3.11", "/opt/venv/bin/locust", "-f", "experiments/load/locustfile.py"],
        7: ["tail", "-f", "/var/log/locust"],
        8: ["python", "/opt/venv/bin/locust-plugins"],
    }
    assert machine_lock.loads(commands) == {1, 2, 6}


def test_a_load_of_ones_own_is_not_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process started is its own; the same command elsewhere may spoil the run."""
    idle = [sys.executable, "-c", "import sys; sys.stdin.read()", "experiments.load"]
    with subprocess.Popen(idle, stdin=subprocess.PIPE) as ours:
        listed = [one for one in machine_lock.psutil.process_iter(["pid", "cmdline"]) if one.pid == ours.pid]
        monkeypatch.setattr(machine_lock.psutil, "process_iter", lambda _: listed)
        assert machine_lock.foreign_load() is False
        monkeypatch.setattr(machine_lock.psutil.Process, "parents", lambda _: [])
        assert machine_lock.foreign_load() is True
        assert ours.stdin is not None
        ours.stdin.close()
    # It is still listed, and gone.
    assert machine_lock.foreign_load() is False
