"""One measurement at a time on a machine: two would distort each other's figures."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from experiments import files
from pipeline.errors import EmoStreamError
from pipeline.jars import default_cache_dir

_LOAD = ("experiments.load", "locust")


@contextmanager
def alone(what: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the machine's lock for `what`, which a second process reports; the system releases it when this one ends.

    A sweep holds it for all its runs: a run that is started by an ancestor with the lock runs under the ancestor's
    lock. Raises EmoStreamError naming the holder if another process has it, or the lock if it cannot be written.
    `folder` holds the lock file, by default the user's cache.
    """
    path = (folder or default_cache_dir(os.environ)) / "measuring.lock"
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not buffered: a full disk then raises where it is written.
        opened = path.open("ab+", buffering=0)
    with opened as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            pid, holder = _holder(handle.read())
            if pid not in {parent.pid for parent in psutil.Process().parents()} | {os.getpid()}:
                raise EmoStreamError(
                    f"{holder} (process {pid}) is measuring on this machine: wait until it has ended, or end it; two "
                    "at once would distort each other's figures"
                ) from None
            yield
        else:
            with files.writing(path):
                handle.truncate(0)
                handle.write(json.dumps({"pid": os.getpid(), "what": what}).encode())
            yield


def foreign_load() -> bool:
    """Return whether a load generator runs on this machine that this process did not start, such as another user's."""
    commands = {one.pid: one.info["cmdline"] or [] for one in psutil.process_iter(["pid", "cmdline"])}
    return any(_is_foreign(pid) for pid in loads(commands))


def loads(commands: Mapping[int, Sequence[str]]) -> set[int]:
    """Return which processes (id -> command line) are load generators.

    Locust's command is a script: the system runs it as `python /…/bin/locust`.
    """
    return {pid for pid, words in commands.items() if _is_python(words) and any(map(_is_load, words[1:4]))}


def _is_foreign(pid: int) -> bool:
    try:
        return os.getpid() not in {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.Error:
        # It ended after it was listed; one of our own does so in every run.
        return False


def _is_python(words: Sequence[str]) -> bool:
    return bool(words) and Path(words[0]).name.lower().startswith("python")


def _is_load(word: str) -> bool:
    return Path(word).name in _LOAD


def _holder(text: bytes) -> tuple[int, str]:
    try:
        holder = json.loads(text)
        return int(holder["pid"]), str(holder["what"])
    except (ValueError, KeyError, TypeError):
        # The other process has the lock but has not written its name yet.
        return 0, "Another measurement"
