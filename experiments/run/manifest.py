"""The manifest of a run: the code, the libraries, the machine, the parameters, and the files that it left."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from experiments import files
from experiments.machine import facts
from experiments.repository import CHECKOUT, ROOT
from experiments.run import code_state
from experiments.run.usage import stage_of
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
LOCK = ROOT / "requirements.txt"


def manifest(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's code, libraries, machine and parameters; all values are JSON, and null is unknown."""
    versions = {each.name: each.version for each in importlib.metadata.distributions()}
    return {
        **code_state.code_state(ROOT if CHECKOUT else None),
        "lock_sha256": files.sha256(LOCK) if CHECKOUT and LOCK.exists() else None,
        "versions": {
            "python": platform.python_version(),
            "java": find_java().version,
            "kafka": KAFKA_VERSION,
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "packages": dict(sorted(versions.items())),
        **facts.machine(),
        "seed": parameters.get("seed"),
        "parameters": dict(parameters),
    }


def jvm_flags(root: int) -> dict[str, list[str]]:
    """Return the options of each JVM below the process `root`, by its stage: those before the main class."""
    flags = {}
    for process in psutil.Process(root).children(recursive=True):
        try:
            name, *words = process.cmdline() or [""]
            if Path(name).name == "java":
                stage = next((found for above in process.parents() if (found := stage_of(above.cmdline()))), "java")
                flags[stage] = list(takewhile(lambda word: word.startswith(("-", "@")) or "/" in word, words))
        except psutil.Error:
            # It ended after it was listed.
            continue
    return {stage: [word for word in words if word.startswith(("-X", "-D"))] for stage, words in flags.items()}


def frames(run_dir: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return of each frame in `run_dir` its number of rows and the SHA-256 of its file."""
    paths = [run_dir / f"{name}.parquet" for name in sorted(names)]
    return {path.stem: {"rows": pq.read_metadata(path).num_rows, "sha256": files.sha256(path)} for path in paths}
