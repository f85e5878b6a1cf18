"""Slow one process by a stated share: `python -m experiments.machine.throttle PID SHARE`, until SIGTERM.

For each CPU second that the process uses, the throttle uses share / (1 - share) CPU seconds itself, while the process
is stopped (SIGSTOP, SIGCONT). So the process's CPU time is dilated by 1 / (1 - share), for the process and for the
machine: a busy process proceeds at (1 - share) of its speed, an idle one loses nothing, and beside a full machine the
others get as much less CPU as if the process had needed so much more. A stop for a share of the *wall* time would not
do this: a process that waits for a core half of the time could wait while it is stopped, and would lose nothing.

The throttle has the scheduling of the process: what it uses, the process would have used. It looks every TICK_S, and
less often while the process idles; a burst of work that is shorter is paid after it. What looking costs is part of what
it has to use. At the end it prints one line of JSON: see `Slowed`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from experiments.machine.ending import until_asked

TICK_S = 0.004
# While nothing is owed, the time to the next look doubles up to this: a look costs some 40 microseconds of CPU.
IDLE_TICK_S = 0.032
# Shorter stops would cost more in signals than they take.
LEAST_S = 0.0004
# Linux's clock of all threads of another process (see clock_getcpuclockid(3)); it counts in nanoseconds.
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True)
class Slowed:
    """What was done to the process `pid`: the CPU seconds it used itself, those used in its place, how many times it
    was stopped and for how long (wall time, s).
    """

    pid: int
    cpu_s: float
    burned_s: float
    stops: int
    stopped_s: float


def extra(share: float) -> float:
    """Return the CPU seconds to use for each one of the process, so that `share` of the sum is not the process's."""
    return share / (1 - share)


def cpu_clock(pid: int) -> int:
    """Return the id of the clock that counts the CPU time of the process `pid`; it fails once the process has ended."""
    return (~pid << 3) | _CPUCLOCK_SCHED


def slow(pid: int, share: float) -> Slowed:
    """Slow the process until SIGTERM or SIGINT, or until it or the parent of this process ends.

    The process is not left stopped. Raises ProcessLookupError or OSError if there is no such process.
    """
    parent, clock, owed_per_s = os.getppid(), cpu_clock(pid), extra(share)
    first_s, last_s, own_s = time.clock_gettime(clock), 0.0, time.process_time()
    burned_s, stops, stopped_s, tick_s = 0.0, 0, 0.0, TICK_S
    with until_asked():
        try:
            while os.getppid() == parent:
                used_s = time.clock_gettime(clock) - first_s
                due_s = own_s + owed_per_s * used_s
                if due_s - time.process_time() >= LEAST_S:
                    began_s = time.monotonic()
                    os.kill(pid, signal.SIGSTOP)
                    stops += 1
                    while time.process_time() < due_s:
                        pass
                    os.kill(pid, signal.SIGCONT)
                    stopped_s += time.monotonic() - began_s
                    tick_s = TICK_S
                else:
                    tick_s = min(2 * tick_s, IDLE_TICK_S)
                # Both here: a signal may come before what was owed is used, and on some machines an exception costs
                # milliseconds.
                last_s, burned_s = used_s, time.process_time() - own_s
                time.sleep(tick_s)
        except OSError:
            # A process that has ended has no clock.
            pass
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return Slowed(pid, last_s, burned_s, stops, stopped_s)


def schedule_as(pid: int) -> None:
    """Give this process the scheduling of another, as far as the system allows it."""
    try:
        os.sched_setscheduler(0, os.sched_getscheduler(pid), os.sched_getparam(pid))
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, pid))
    except (OSError, AttributeError):
        return


def main() -> None:
    """`python -m experiments.machine.throttle`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.machine.throttle",
        description="Slow a process by a share until SIGTERM; print what was done as JSON. A run with slow_stage "
        "starts one for each process of that stage.",
    )
    line.add_argument("pid", type=int, help="id of the process")
    line.add_argument("share", type=float, help="of its CPU time and the throttle's together, below 1")
    options = line.parse_args()
    if not 0 < options.share < 1:
        line.error(f"share is {options.share:g}: give more than 0 and less than 1")
    schedule_as(options.pid)
    try:
        done = slow(options.pid, options.share)
    except OSError as error:
        line.error(f"pid is {options.pid}, which cannot be slowed ({error.strerror}): give a process that runs")
    print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    main()
