"""The lock file in a run directory: whether a chain runs there, and its addresses once it is ready."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import IO, Any, Self

from pipeline.errors import SettingError, plain_reason
from pipeline.settings import REACHING, Settings, secured
from pipeline.shell import emostream, path_word

FILE = "lock"


class LockFile:
    """Reserves a run directory for one supervisor until its process ends.

    Entering raises SettingError if another supervisor has reserved it.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def __enter__(self) -> Self:
        # Opened without truncating: another supervisor's line must stay.
        self._handle: IO[str] = (self._run_dir / FILE).open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._handle.close()
            raise SettingError(
                f"run_dir {self._run_dir} is in use by another `up`: stop that one, or give another --run-dir"
            ) from error
        self._handle.truncate(0)
        return self

    def publish(self, line: str) -> None:
        """Write the line that `up` prints once the chain is ready, for `find`."""
        self._handle.write(line + "\n")
        self._handle.flush()

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def find(run_dir: Path) -> dict[str, Any]:
    """Return the addresses that the chain in `run_dir` published, as a dict of the line that `up` prints.

    Raises SettingError if no chain runs there, or if it is not ready yet.
    """
    start = f"`{emostream('up', '--run-dir', path_word(run_dir))}` starts one"
    try:
        handle = (run_dir / FILE).open(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingError(f"run_dir {run_dir} has no running chain: {start}") from error
    except OSError as error:
        raise SettingError(f"run_dir {run_dir} has no running chain ({plain_reason(error)}): {start}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            line = handle.read()
        else:
            raise SettingError(
                f"run_dir {run_dir} has no running chain: {start}, or give the --run-dir of a running one"
            )
    if not line.endswith("\n"):
        raise SettingError(
            f"run_dir {run_dir} has a chain that is still starting: try again when `up` has printed its line"
        )
    addresses: dict[str, Any] = json.loads(line)
    return addresses


def reaching(running: dict[str, Any]) -> Settings:
    """Return the settings that reach the Kafka and the topics of what `find` returned; its security is in use then.

    Raises SettingError if the file that the chain uses cannot be used here.
    """
    return secured(Settings(**{name: running[name] for name in REACHING}))
