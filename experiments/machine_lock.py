"""One measurement at a time on a machine: two would spoil each other's figures."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from pipeline.errors import EmoStreamError
from pipeline.jars import default_cache_dir

_LOAD = ("experiments.load", "locust")


@contextmanager
def alone(what: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the machine for `what` (text for whoever comes second); the system lets go when the process ends.

    A sweep holds it for all its runs: a run that one of this process's ancestors started goes on under the
    ancestor's hold. Raises EmoStreamError naming the holder if somebody else has it. `folder` is where the lock
    lies, by default the user's cache.
    """
    path = (folder or default_cache_dir(os.environ)) / "measuring.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            pid, holder = _holder(handle.read())
            if pid not in {parent.pid for parent in psutil.Process().parents()} | {os.getpid()}:
                raise EmoStreamError(
                    f"{holder} (process {pid}) is measuring on this machine: wait until it has ended, or end it; two "
                    "at once would spoil each other's figures"
                ) from None
            yield
        else:
            handle.truncate(0)
            handle.write(json.dumps({"pid": os.getpid(), "what": what}))
            handle.flush()
            yield


def foreign_load() -> bool:
    """Whether a load generator runs on this machine that this process did not start: of another user, say."""
    ours = {child.pid for child in psutil.Process().children(recursive=True)}
    commands = {one.pid: one.info["cmdline"] or [] for one in psutil.process_iter(["pid", "cmdline"])}
    return bool(loads(commands) - ours)


def loads(commands: Mapping[int, Sequence[str]]) -> set[int]:
    """Return which processes (id -> command line) are load generators."""
    return {pid for pid, words in commands.items() if any(word in _LOAD for word in words[1:4])}


def _holder(text: str) -> tuple[int, str]:
    try:
        said = json.loads(text)
        return int(said["pid"]), str(said["what"])
    except (ValueError, KeyError, TypeError):
        # The other process has the lock but has not yet said who it is.
        return 0, "Another measurement"
