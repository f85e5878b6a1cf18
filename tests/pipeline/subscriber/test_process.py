"""A process that holds thousands of connections returns their memory when they have left."""

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

# The objects that a crowd leaves: nearly all are free, and one in a thousand lives on.
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

only_glibc = pytest.mark.skipif(_heap() is None, reason="this system's C library has no malloc_trim")


def crowd(tmp_path: Path, **env: str) -> dict[str, object]:
    """Run CROWD as a file with arguments; return its output, and the id of the process that was started."""
    script = tmp_path / "crowd.py"
    script.write_text(CROWD)
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
    process = subprocess.Popen(
        [sys.executable, script, "--one", "two three"],
        env={**plain, "PYTHONPATH": str(REPOSITORY), **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return {**json.loads(output), "started": process.pid}


@only_glibc
def test_restarted_process_keeps_id_and_arguments_and_returns_memory(tmp_path: Path) -> None:
    """Most of the crowd's memory returns to the system, although an object in every mebibyte lives on."""
    result = crowd(tmp_path)
    assert result["arguments"] == ["--one", "two three"]
    assert result["pid"] == result["started"]
    before, full, after = result["rss"]  # type: ignore[misc]
    assert after - before < 0.2 * (full - before), result


@pytest.mark.parametrize(("chosen", "used"), [({}, "malloc"), ({"PYTHONMALLOC": "pymalloc"}, "pymalloc")])
@only_glibc
def test_pythonmalloc_setting_is_kept(tmp_path: Path, chosen: dict[str, str], used: str) -> None:
    """PYTHONMALLOC decides; without it, the C library's allocator is used."""
    assert crowd(tmp_path, **chosen)["allocator"] == used


@only_glibc
def test_subscriber_runs_on_the_c_librarys_allocator() -> None:
    """However it is started: here by itself, waiting for Kafka."""
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
