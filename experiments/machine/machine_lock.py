"""One measurement at a time on a machine: two would distort each other's figures."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from experiments import files
from pipeline.errors import EmoStreamError

FOLDER = Path("/tmp")
"""Every user of the machine can write here, whatever TMPDIR is: a second user must find the first one's lock.

In a container whose file system is read-only the lock is in TMPDIR.
"""
NAME = "emostream-measuring.lock"
# Between taking the lock and writing its name a process does nothing else.
NAMED_S = 1.0
NAMED_POLL_S = 0.02
_LOAD = ("experiments.load", "locust")


@dataclass(frozen=True)
class Holder:
    """The process that holds the lock: its id (0: not known), what it does, its user and since when."""

    pid: int = 0
    what: str = "Another measurement"
    user: str = ""
    since: str = ""

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid} of user {self.user}, since {self.since})" if self.pid else self.what


@contextmanager
def alone(what: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the machine's lock for `what`, which a second process reports; the system releases it when this one ends.

    A sweep holds it for all its runs: a run that is started by an ancestor with the lock runs under the ancestor's
    lock. Raises EmoStreamError naming the holder if another process has it, or the lock if it cannot be written.
    """
    path = (folder or _common_folder()) / NAME
    with files.writing(path):
        handle = _opened(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(handle)
            if holder.pid not in {parent.pid for parent in psutil.Process().parents()} | {os.getpid()}:
                remedy = (
                    f"wait until it has ended, or end it (kill {holder.pid})"
                    if holder.pid
                    else "wait until it has ended"
                )
                raise EmoStreamError(
                    f"{holder} is measuring on this machine: {remedy}; two at once would distort each other's figures"
                ) from None
        else:
            since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            record = Holder(os.getpid(), what, psutil.Process().username(), since)
            with files.writing(path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(asdict(record)).encode(), 0)
        yield
    finally:
        os.close(handle)


def _common_folder() -> Path:
    return FOLDER if os.access(FOLDER, os.W_OK, effective_ids=True) else Path(tempfile.gettempdir())


def _opened(path: Path) -> int:
    """Open the lock file, which every user may write; make it if it is missing.

    It is made and opened in two calls: Linux refuses to open with O_CREAT a file that another user made in /tmp.
    """
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            try:
                made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
            except FileExistsError:
                continue
            # Not by the mode of open: the umask would narrow it.
            os.fchmod(made, 0o666)
            return made


def _holder(handle: int) -> Holder:
    """Return who has the lock. It may have taken it a moment ago: then the file still names the one before it."""
    deadline_s = time.monotonic() + NAMED_S
    while True:
        try:
            holder = Holder(**json.loads(os.pread(handle, 65_536, 0)))
            if psutil.pid_exists(holder.pid):
                return holder
        except (ValueError, TypeError, OverflowError):
            pass
        if time.monotonic() > deadline_s:
            return Holder()
        time.sleep(NAMED_POLL_S)


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
