"""The machine of a run: its processor, memory, limits and boot."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
MIB = 2**20
# Some 4 ms each.
WORK_ROUNDS = 20_000
WORK_TIMES = 40
WORK_PAUSE_S = 0.05
WORK_LOOKS = 4
WORK_ALIKE = 1.03


def machine(proc: Path = PROC, cgroup: Path = CGROUP) -> dict[str, Any]:
    """Return the facts of this machine; null is unknown or, for a limit, none.

    `cores` the system has, `usable_cores` this process may run on, `cpu_quota_cores` its control group may use at a
    time, `memory_mb` in all and `memory_limit_mb` of the control group (MiB). `boot_id` differs after every boot.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu(proc),
        "cores": os.cpu_count(),
        "usable_cores": len(affinity(0)) if affinity else None,
        "cpu_quota_cores": _cpu_quota(cgroup),
        "memory_mb": psutil.virtual_memory().total // MIB,
        "memory_limit_mb": _memory_limit(cgroup),
        "kernel": f"{platform.system()} {platform.release()}",
        "boot_id": _line(proc / "sys" / "kernel" / "random" / "boot_id"),
    }


def steal_s() -> float:
    """Return the CPU time, in seconds since the boot, in which the host ran something else; 0 where it does not say."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def work_again_s(before_s: float) -> float:
    """Return how long that work takes now; if it is longer than `before_s`, the least of WORK_LOOKS looks.

    A machine that became slower stays so. What another one on the same host does passes.
    """
    found_s = work_s()
    for _ in range(WORK_LOOKS - 1):
        if found_s <= before_s * WORK_ALIKE:
            break
        found_s = min(found_s, work_s())
    return found_s


def work_s() -> float:
    """Return how long a fixed piece of work takes on one core now, in seconds: the least of WORK_TIMES.

    They are spread over some seconds: two cores may be two threads of one, and the work takes almost twice as long
    while the other thread is busy.
    """
    times = []
    for _ in range(WORK_TIMES):
        started_s = time.perf_counter()
        # In one call, so that nothing of Python is timed.
        hashlib.pbkdf2_hmac("sha256", b"emostream", b"work", WORK_ROUNDS)
        times.append(time.perf_counter() - started_s)
        time.sleep(WORK_PAUSE_S)
    return round(min(times), 6)


def _cpu(proc: Path) -> str:
    lines = _text(proc / "cpuinfo").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _cpu_quota(cgroup: Path) -> float | None:
    """Return the quota of version 2 of control groups (`max 100000`, or microseconds per period), or of version 1."""
    quota, _, period = _text(cgroup / "cpu.max").partition(" ")
    if not quota:
        quota, period = (_text(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    try:
        cores = int(quota) / int(period)
    except ValueError:
        return None
    return round(cores, 3) if cores > 0 else None


def _memory_limit(cgroup: Path) -> int | None:
    limit = _text(cgroup / "memory.max") or _text(cgroup / "memory" / "memory.limit_in_bytes")
    # Version 1 writes "no limit" as a number near 2^63.
    return int(limit) // MIB if limit.strip().isdigit() and int(limit) < 2**60 else None


def _line(path: Path) -> str | None:
    return _text(path).strip() or None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
