"""Processes of the project that a test starts: their command lines, their families, their ends, and taken ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.harness.paths import REPOSITORY
from tests.harness.waiting import DEADLINE_S

NBVAL = [
    sys.executable,
    "-m",
    "pytest",
    "--nbval",
    "--nbval-current-env",
    "-p",
    "no:cacheprovider",
    "-q",
    "-c",
    os.devnull,
]
"""The command that checks notebooks, whose paths follow, with this interpreter as their kernel."""


def maps(pid: int, path: Path) -> bool:
    """Return whether a process has mapped a file into its memory (Linux)."""
    return str(path) in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")


def module(name: str, *options: str) -> list[str]:
    """The command line that runs a module: `python -m name options`."""
    return [sys.executable, "-m", name, *options]


def run_to_end(
    command: list[str], timeout_s: float = 2 * DEADLINE_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends by itself; return its status and what it printed."""
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command in the repository; at the end it and its descendants are killed if they still run."""
    with subprocess.Popen(command, cwd=REPOSITORY, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_family(process)


def kill_family(process: subprocess.Popen[Any]) -> None:
    """Kill a process and its descendants at once, so that none gets to flush, and wait until they are gone."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in family:
        each.kill()
    process.wait(DEADLINE_S)
    psutil.wait_procs(family, DEADLINE_S)


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def taken_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port on which something listens already."""
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen()
        yield int(taken.getsockname()[1])
