"""A loopback interface of one's own, which can be made slow and lossy without harm to anything else."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipeline.errors import EmoStreamError

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
# As on Ethernet. The loopback's usual 64 KiB are more than a slow link's burst, which would lose each of them.
MTU = 1500
BURST = "16kb"


def unavailable() -> str:
    """Return why there can be no network of one's own here, "" if there can."""
    if sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc"))):
        return "it needs Linux, root, and the commands ip and tc (Debian: apt-get install iproute2)"
    return ""


def apart(work: Callable[[], T]) -> T:
    """Do `work` in a thread that has a network of its own, as has all that it starts: return what it returns.

    Raises EmoStreamError if there can be none, and whatever `work` raises.
    """
    if reason := unavailable():
        raise EmoStreamError(f"there is no network apart from the machine's: {reason}")
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise EmoStreamError(f"the kernel gave no network of its own: {os.strerror(number)}")
            _run("ip", "link", "set", "lo", "up", "mtu", str(MTU))
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="own-network")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


@contextmanager
def slow(mbit_per_s: float, queue_ms: int) -> Iterator[None]:
    """Let the loopback carry so much meanwhile; what would wait longer than `queue_ms` is lost. Within `apart`."""
    shape = ("tbf", "rate", f"{mbit_per_s:g}mbit", "burst", BURST, "latency", f"{queue_ms}ms")
    _run("tc", "qdisc", "replace", "dev", "lo", "root", *shape)
    try:
        yield
    finally:
        _run("tc", "qdisc", "del", "dev", "lo", "root")


def lost_packets() -> int:
    """Return how many packets the slow loopback has lost. Within `slow`."""
    for line in _run("tc", "-s", "qdisc", "show", "dev", "lo").splitlines():
        if "(dropped " in line:
            return int(line.partition("(dropped ")[2].partition(",")[0])
    raise EmoStreamError("tc names no lost packets: is the loopback slow?")


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise EmoStreamError(f"{' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout
