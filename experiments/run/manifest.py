"""The manifest of a run: commit, versions, machine and parameters; and a watch on the clock during the run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.repository import CHECKOUT, ROOT
from pipeline.jars import KAFKA_VERSION
from pipeline.java import find_java

PACKAGES = (
    "pyspark",
    "kafka-python",
    "confluent-kafka",
    "flask",
    "granian",
    "aiohttp",
    "pandas",
    "papermill",
)
CLOCK_SAMPLE_S = 1.0


class ClockWatch:
    """Samples (time_ns, monotonic_ns) pairs while it is entered; `samples` shows whether the clock stepped."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock-watch", daemon=True)

    def __enter__(self) -> ClockWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.samples.append(_pair())
            if self._stop.wait(CLOCK_SAMPLE_S):
                self.samples.append(_pair())
                return


def _pair() -> tuple[int, int]:
    """Read both clocks at once: the closest of a few tries, so that a preemption between the reads is not a step."""
    tries = []
    for _ in range(5):
        before_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        after_ns = time.monotonic_ns()
        tries.append((after_ns - before_ns, wall_ns, (before_ns + after_ns) // 2))
    _, wall_ns, monotonic_ns = min(tries)
    return wall_ns, monotonic_ns


def manifest(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's code, libraries, machine and parameters; all values are JSON."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "versions": {
            "python": platform.python_version(),
            "java": find_java().major,
            "kafka": KAFKA_VERSION,
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "seed": parameters.get("seed"),
        "parameters": dict(parameters),
    }


def _git(*arguments: str) -> str | None:
    """Return git's answer about this project's checkout, or None if it is not one. Nothing is written there."""
    if not CHECKOUT:
        # The working directory may be the checkout of another project.
        return None
    command = ["git", "--no-optional-locks", *arguments]
    # GIT_DIR and the like name other repositories.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
