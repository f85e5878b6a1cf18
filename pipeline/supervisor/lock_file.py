"""The mark of a running chain on its run directory: whether one runs there, and what it said when it was ready."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import IO, Any, Self

from pipeline.errors import SettingError

FILE = "lock"


class LockFile:
    """Holds a run directory for one supervisor, for as long as its process lives.

    Entering raises SettingError if another has it.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def __enter__(self) -> Self:
        # Opened so that another's words stay if it is there.
        self._handle: IO[str] = (self._run_dir / FILE).open("a+")
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._handle.close()
            raise SettingError(
                f"run_dir {self._run_dir} is in use by another `up`: stop that one, or give --run-dir"
            ) from error
        self._handle.truncate(0)
        return self

    def say(self, line: str) -> None:
        """Leave what the chain says when it is ready for whoever looks for it."""
        self._handle.write(line + "\n")
        self._handle.flush()

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def find(run_dir: Path) -> dict[str, Any]:
    """Return what the chain that runs in `run_dir` said when it was ready.

    Raises SettingError when none runs there, or it is not ready yet.
    """
    start = f"`python -m pipeline up --run-dir {run_dir}` starts one"
    try:
        handle = (run_dir / FILE).open()
    except OSError as error:
        raise SettingError(f"no chain runs in run_dir {run_dir} ({error.strerror}): {start}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            line = handle.read()
        else:
            raise SettingError(f"no chain runs in run_dir {run_dir}: {start}, or give the --run-dir of another")
    if not line.endswith("\n"):
        raise SettingError(f"the chain in run_dir {run_dir} is still starting: try again once it has said where it is")
    said: dict[str, Any] = json.loads(line)
    return said
