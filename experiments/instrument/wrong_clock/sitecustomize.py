"""A wall clock that runs or steps away from the monotonic one, in every Python process that finds this module first.

libfaketime 0.9.10 cannot do it here: with FAKETIME_DONT_FAKE_MONOTONIC its clock_nanosleep refuses Python's time.sleep,
and without it both clocks are wrong by the same amount. A Kafka under it needs seconds for an event.

WRONG_CLOCK is `BEGIN_NS RATE STEP_NS`: from the monotonic moment BEGIN_NS on the wall clock is ahead by STEP_NS, and by
RATE of the time since then.
"""

import os
import time
from collections.abc import Callable

VARIABLE = "WRONG_CLOCK"


def wrong(begin_ns: int, rate: float, step_ns: int, true_ns: Callable[[], int]) -> Callable[[], int]:
    """Return the wrong clock, epoch ns, made from the true one."""

    def time_ns() -> int:
        since_ns = time.monotonic_ns() - begin_ns
        return true_ns() + (0 if since_ns < 0 else step_ns + int(since_ns * rate))

    return time_ns


if VARIABLE in os.environ:
    _begin, _rate, _step = os.environ[VARIABLE].split()
    time.time_ns = wrong(int(_begin), float(_rate), int(_step), time.time_ns)
    time.time = lambda: time.time_ns() / 1e9
