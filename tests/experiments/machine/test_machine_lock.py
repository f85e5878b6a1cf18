"""One measurement at a time: the second is refused by name, a run of the holder's own goes on."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.machine import machine_lock
from pipeline.errors import EmoStreamError

HOLD = """
import sys
from pathlib import Path
from experiments.machine.machine_lock import alone
with alone("The sweep of x.yaml", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TRY = """
import sys
from pathlib import Path
from experiments.machine.machine_lock import alone
with alone("a run", Path(sys.argv[1])):
    print("in")
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the lock in `folder`; it is killed at the end."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_second_measurement_names_the_holder_of_the_machine(tmp_path: Path) -> None:
    """It names what the other does, its process and user, since when and the remedy; it may begin after the other."""
    with held(tmp_path) as holder:
        said = (
            rf"The sweep of x\.yaml \(process {holder.pid} of user {getpass.getuser()}, since [-\d]+ [:\d]+ UTC\) "
            rf"is measuring on this machine: wait until it has ended, or end it \(kill {holder.pid}\)"
        )
        with pytest.raises(EmoStreamError, match=said), machine_lock.alone("a run", tmp_path):
            pytest.fail("two measurements at once")
    with machine_lock.alone("a run", tmp_path):
        pass


def test_a_run_uses_the_lock_of_its_sweep(tmp_path: Path) -> None:
    """A process below the holder's is the holder's own."""
    with machine_lock.alone("a sweep", tmp_path):
        inner = subprocess.run(
            [sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=240
        )
    assert inner.stdout == "in\n"


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where its folder should be, say."""
    (tmp_path / "cache").write_text("")
    with (
        pytest.raises(
            EmoStreamError, match=r"cache/emostream-measuring\.lock could not be written: Not a directory: fix"
        ),
        machine_lock.alone("a run", tmp_path / "cache"),
    ):
        pytest.fail("measured without a lock")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_measurement_of_another_user_is_refused_by_name() -> None:
    """Users share the lock, whatever their homes, caches and umasks are, where a file belongs to its maker."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        with held(Path(folder)) as holder:
            refused = by_nobody(folder)
        assert f"The sweep of x.yaml (process {holder.pid} of user root, since " in refused.stderr
        # Nobody's own file is everybody's as well.
        (Path(folder) / machine_lock.NAME).unlink()
        assert by_nobody(folder).stdout == "in\n"
        with held(Path(folder)):
            pass


def by_nobody(folder: str) -> subprocess.CompletedProcess[str]:
    """Try to measure as the user nobody, who may not even read the interpreter: after all imports."""
    script = TRY.replace("\nwith", "\nimport os; os.umask(0o077); os.setuid(65_534)\nwith")
    words = [sys.executable, "-c", script, folder]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)


def test_lock_is_in_tmpdir_where_nobody_can_write_to_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with a read-only file system and a volume for temporary files, say."""
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path / "sealed")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with machine_lock.alone("a run"):
        assert (tmp_path / machine_lock.NAME).exists()


def test_holder_that_has_not_written_its_name_is_awaited(tmp_path: Path) -> None:
    """Until the new holder has written its own name, the file has that of the one before it, which has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / machine_lock.NAME
    path.write_text(json.dumps({"pid": ended.pid, "what": "old", "user": "ada", "since": ""}), encoding="utf-8")
    idle = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(idle, stdin=subprocess.PIPE) as new, path.open("r+", encoding="utf-8") as held:
        late = {"pid": new.pid, "what": "The new one", "user": "root", "since": "now"}
        fcntl.flock(held, fcntl.LOCK_EX)
        named = threading.Timer(0.2, path.write_text, [json.dumps(late), "utf-8"])
        named.start()
        with (
            pytest.raises(EmoStreamError, match=rf"^The new one \(process {new.pid} "),
            machine_lock.alone("a run", tmp_path),
        ):
            pytest.fail("two measurements at once")
        named.join()
        assert new.stdin is not None
        new.stdin.close()


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
