"""A loopback interface of one's own, which can be made slow and lossy without harm to anything else."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import EmoStreamError

CLONE_NEWNET = 0x40000000
# As on Ethernet. The loopback's usual 64 KiB are more than a slow link's burst, which would lose each of them.
MTU = 1500
BURST = "16kb"


def unavailable() -> str:
    """Return why there can be no network of one's own here, "" if there can."""
    if sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc"))):
        return "it needs Linux, root, and the commands ip and tc (Debian: apt-get install iproute2)"
    return ""


@contextmanager
def apart() -> Iterator[None]:
    """Let this thread, and all that it starts meanwhile, have a network apart from the machine's.

    Raises EmoStreamError if there can be none.
    """
    if reason := unavailable():
        raise EmoStreamError(f"there is no network apart from the machine's: {reason}")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise EmoStreamError(f"the kernel gave no network of its own: {os.strerror(ctypes.get_errno())}")
        try:
            _run("ip", "link", "set", "lo", "up", "mtu", str(MTU))
            yield
        finally:
            if libc.setns(before.fileno(), CLONE_NEWNET) != 0:
                raise EmoStreamError(f"the kernel kept the network: {os.strerror(ctypes.get_errno())}")


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
