"""The chain that runs on this machine, as `send`, `watch` and `doctor` find it: by its run directory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline import settings
from pipeline.errors import SettingError
from pipeline.supervisor import lock_file


def add_options(line: argparse.ArgumentParser, stage: str) -> None:
    """Add the two options that say where `stage` is: its URL, or the run directory of a chain on this machine."""
    line.add_argument("--url", help=f"base URL of {stage}; default: that of the chain that runs in --run-dir")
    line.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="run directory of that chain; default: the setting run_dir"
    )


def url(options: argparse.Namespace, stage: str) -> str:
    """Return the base URL of `stage`, "ingest" or "registry".

    Raises SettingError for an address that is not a URL, and if no chain runs in the run directory or it still starts.
    """
    given: str | None = options.url
    if given is None:
        run_dir = options.run_dir or Path(settings.build(settings.from_env(os.environ)).run_dir)
        return str(lock_file.find(run_dir)[stage])
    if not given.startswith(("http://", "https://")):
        raise SettingError(f"--url is {given!r}: give the address of {stage} as http://host:port")
    return given.rstrip("/")
