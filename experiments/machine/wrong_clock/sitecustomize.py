"""A wall clock that runs or steps away from the monotonic one, in every Python process that finds this module first.

libfaketime 0.9.10 cannot do it here: with FAKETIME_DONT_FAKE_MONOTONIC its clock_nanosleep refuses Python's time.sleep,
and without it both clocks are wrong by the same amount. A Kafka under it needs seconds for an event.

WRONG_CLOCK names a file with BEGIN_NS, RATE and STEP_NS: from the monotonic moment BEGIN_NS on the wall clock is ahead
by STEP_NS, and by RATE of the time since then. Whoever planted it may change the file at any moment.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable

VARIABLE = "WRONG_CLOCK"
NUMBERS = struct.Struct("=qdq")


def wrong(file: str, true_ns: Callable[[], int]) -> Callable[[], int]:
    """Return the wrong clock, epoch ns, made from the true one."""
    descriptor = os.open(file, os.O_RDONLY)
    shared = mmap.mmap(descriptor, NUMBERS.size, access=mmap.ACCESS_READ)
    os.close(descriptor)

    def time_ns() -> int:
        begin_ns, rate, step_ns = NUMBERS.unpack_from(shared)
        since_ns = time.monotonic_ns() - begin_ns
        return true_ns() + (0 if since_ns < 0 else step_ns + int(since_ns * rate))

    return time_ns


if VARIABLE in os.environ:
    time.time_ns = wrong(os.environ[VARIABLE], time.time_ns)
    time.time = lambda: time.time_ns() / 1e9
