"""Logs of a process whose standard error was closed before it started."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from pipeline import logs
logs.configure("stage")
logs.get("stage").info("serving")
print("goes on")
"""


def test_closed_standard_error_ends_nothing() -> None:
    """Its lines are lost; the program goes on."""
    command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
