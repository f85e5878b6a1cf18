"""Logs of a process whose standard error is closed before it starts, or whose terminal goes away."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

PROGRAM = """
from pipeline import logs
logs.configure("stage")
logs.get("stage").info("serving")
print("goes on")
"""

# What is written without the end of a line stays in the buffer until the process ends.
UNFINISHED = """
import signal, sys
from pipeline import logs
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print("ready", flush=True)
while True:
    try:
        print(flush=True)
    except OSError:
        break
sys.stderr.write("half a line")
logs.let_go()
"""


def test_closed_standard_error_ends_nothing() -> None:
    """Its lines are lost; the program goes on."""
    command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_output_whose_terminal_is_gone_does_not_change_the_exit_status() -> None:
    """Python's own flush at exit would fail, with another status."""
    pid, ours = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", UNFINISHED])
    assert b"ready" in os.read(ours, 1000)
    os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
