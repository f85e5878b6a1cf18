"""Small disks of one's own, in memory, which can be full without harm to anything else: nothing else sees them.

Such a disk is there until the processes that see it have ended.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import EmoStreamError

CLONE_FS, CLONE_NEWNS = 0x200, 0x20000
MS_BIND, MS_PRIVATE, MS_REC = 0x1000, 1 << 18, 0x4000
PAGE = 4096


def unavailable() -> str:
    """Return why there can be no disk of one's own here, "" if there can."""
    needs = "it needs Linux, root with the right to mount, and the command unshare (Debian: apt-get install util-linux)"
    if sys.platform != "linux" or not shutil.which("unshare"):
        return needs
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/"]
    done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return needs if done.returncode else ""


@contextmanager
def apart() -> Iterator[None]:
    """Let this thread, and all that it starts meanwhile, be the only ones that see disks that are mounted from now on.

    Afterwards the working directory is as before. Raises EmoStreamError if there can be none.
    """
    if reason := unavailable():
        raise EmoStreamError(f"there are no disks apart from the machine's: {reason}")
    libc, folder = ctypes.CDLL(None, use_errno=True), Path.cwd()
    with Path("/proc/thread-self/ns/mnt").open("rb") as before:
        _check("unshare", libc.unshare(CLONE_NEWNS))
        try:
            _mount("none", Path("/"), flags=MS_PRIVATE | MS_REC)
            yield
        finally:
            # A thread that was started meanwhile shares the working directory, and would have it changed as well.
            _check("unshare", libc.unshare(CLONE_FS))
            _check("setns", libc.setns(before.fileno(), CLONE_NEWNS))
            os.chdir(folder)


def cover(folder: Path, size_mb: int, keep: Iterable[Path] = ()) -> None:
    """Put an empty disk of this size in place of `folder`; the folders in it that have paths of `keep` stay. Within
    `apart`.
    """
    tops = {folder / path.relative_to(folder).parts[0] for path in keep if folder in path.parents}
    with ExitStack() as stack:
        opened = {}
        for top in tops:
            opened[top] = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, opened[top])
        _mount("none", folder, kind="tmpfs", options=f"size={size_mb}m,mode=1777")
        for top, descriptor in opened.items():
            top.mkdir()
            _mount(f"/proc/thread-self/fd/{descriptor}", top, flags=MS_BIND)


def move(folder: Path, size_mb: int) -> None:
    """Move what is in `folder` to a disk of this size, which takes its place. Within `apart`."""
    aside = folder.with_name(f"{folder.name}.moved")
    folder.rename(aside)
    folder.mkdir()
    cover(folder, size_mb)
    # Kafka's indexes have holes.
    command = ["cp", "--archive", "--sparse=always", f"{aside}/.", str(folder)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise EmoStreamError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    shutil.rmtree(aside)


@contextmanager
def filled(folder: Path, leave_mb: int = 0) -> Iterator[None]:
    """Fill the disk of `folder` meanwhile, up to `leave_mb` free. Raises EmoStreamError if there is less already."""
    ballast = folder / "ballast"
    take = shutil.disk_usage(folder).free - (leave_mb << 20)
    if take <= 0:
        raise EmoStreamError(f"the disk of {folder} cannot be filled up to {leave_mb} MB: it is full already")
    try:
        with ballast.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, take)
            if not leave_mb:
                _fill(file.fileno(), take)
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _fill(descriptor: int, at: int) -> None:
    """Write behind `at` until there is no room: somebody may have made some since."""
    try:
        while True:
            at += os.pwrite(descriptor, bytes(PAGE), at)
    except OSError:
        return


def _mount(source: str, target: Path, *, kind: str = "none", flags: int = 0, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (os.fsencode(source), os.fsencode(target), kind.encode())
    _check(f"mounting {target}", libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None))


def _check(what: str, result: int) -> None:
    if result != 0:
        raise EmoStreamError(f"{what} failed: {os.strerror(ctypes.get_errno())}")
