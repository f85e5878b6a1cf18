"""What one process needs to hold thousands of connections, and what it gives back when they have gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.subscriber.process import _heap

REPOSITORY = Path(__file__).resolve().parents[3]

# Objects as a crowd leaves them: nearly all free, and one in a thousand that lives on.
CROWD = """
import json, os, psutil, sys
from pipeline.subscriber.process import use_system_malloc, trim_heap
use_system_malloc()
here = psutil.Process()
figures = [here.memory_info().rss]
crowd = [("client", {"number": number}) for number in range(300_000)]
figures.append(here.memory_info().rss)
kept = crowd[::1000]
del crowd
trim_heap()
figures.append(here.memory_info().rss)
json.dump({"rss": figures, "arguments": sys.argv[1:], "pid": here.pid,
    "allocator": os.environ["PYTHONMALLOC"]}, sys.stdout)
"""

only_glibc = pytest.mark.skipif(_heap() is None, reason="this system's C library cannot be told to give memory back")


def crowd(tmp_path: Path, **env: str) -> dict[str, object]:
    """Run CROWD as a file with arguments; return what it says, and the id of the process that was started."""
    script = tmp_path / "crowd.py"
    script.write_text(CROWD)
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
    process = subprocess.Popen(
        [sys.executable, script, "--one", "two three"],
        env={**plain, "PYTHONPATH": str(REPOSITORY), **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return {**json.loads(said), "started": process.pid}


@only_glibc
def test_a_process_keeps_its_id_and_arguments_and_gives_back_what_a_crowd_took(tmp_path: Path) -> None:
    """Most of what was taken is the system's again, though something in every mebibyte lives on."""
    told = crowd(tmp_path)
    assert told["arguments"] == ["--one", "two three"]
    assert told["pid"] == told["started"]
    before, full, after = told["rss"]  # type: ignore[misc]
    assert after - before < 0.2 * (full - before), told


@pytest.mark.parametrize(("chosen", "used"), [({}, "malloc"), ({"PYTHONMALLOC": "pymalloc"}, "pymalloc")])
@only_glibc
def test_who_has_chosen_an_allocator_keeps_it(tmp_path: Path, chosen: dict[str, str], used: str) -> None:
    """What PYTHONMALLOC says stays; otherwise it is the C library's."""
    assert crowd(tmp_path, **chosen)["allocator"] == used


@only_glibc
def test_a_subscriber_runs_on_the_c_librarys_allocator() -> None:
    """However it is started: here by itself, waiting for a Kafka."""
    command = [sys.executable, "-m", "pipeline.subscriber", "--bootstrap-servers", "127.0.0.1:1"]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=plain, stderr=subprocess.DEVNULL) as process:
        try:
            deadline_s = time.monotonic() + 20
            while psutil.Process(process.pid).environ().get("PYTHONMALLOC") != "malloc":
                assert process.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
        finally:
            process.kill()
