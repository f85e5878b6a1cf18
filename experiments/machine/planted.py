"""Disturbances that a run plants beside itself, to measure what they do to its figures.

`python -m experiments.machine.planted KIND SIZE [PID]` disturbs until it is ended, and prints `ready` first:

- `foreign SHARE` takes this share of one core, at ordinary priority, as other work on the machine does;
- `bursts SHARE` takes a core away in bursts at a real-time priority above the load generator's, as a host does that
  steals CPU from a virtual machine. Steal itself cannot be planted; the kernel counts this as CPU time;
- `stalls MS` stops the process PID once per second for this long.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from experiments import environment
from experiments.machine.scheduling import REALTIME_PRIORITY
from experiments.parameters import Parameters
from pipeline import lifecycle
from pipeline.errors import EmoStreamError

# Short beside a micro-batch, long beside the kernel's time slices.
FOREIGN_PERIOD_S = 0.05
# A host gives a core to another guest for some milliseconds.
BURST_S = 0.01
STALLS_EVERY_S = 1.0
END_S = 5.0


@contextmanager
def planted(parameters: Parameters, receivers: int) -> Iterator[None]:
    """Disturb the machine and the process `receivers` as `parameters` say, while entered.

    Raises EmoStreamError if the system does not allow it.
    """
    cores = range(os.cpu_count() or 1)
    kinds = [("foreign", parameters.foreign_share), ("bursts", parameters.burst_share)]
    words = [[kind, f"{share:g}", str(core)] for kind, share in kinds if share for core in cores]
    if parameters.stall_ms:
        words.append(["stalls", f"{parameters.stall_ms:g}", str(receivers)])
    processes = [_start(each) for each in words]
    try:
        for process, (kind, size, _) in zip(processes, words, strict=True):
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise EmoStreamError(f"the disturbance {kind} {size} did not start: see its message above")
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate(timeout=END_S)


def _start(words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.machine.planted", *words]
    env = {**environment.own(os.environ), **lifecycle.as_parent()}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=env)


def foreign(share: float) -> None:
    """Take `share` of one core, by this process's own CPU time."""
    due_s = time.monotonic()
    while True:
        upto_s = time.process_time() + share * FOREIGN_PERIOD_S
        while time.process_time() < upto_s:
            pass
        now_s = time.monotonic()
        due_s = max(due_s + FOREIGN_PERIOD_S, now_s)
        time.sleep(due_s - now_s)


def bursts(share: float, core: int) -> None:
    """Take all of `core` for BURST_S at a time, at random moments, `share` of the time in all.

    Raises EmoStreamError without real-time priority.
    """
    try:
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY + 1))
    except (OSError, AttributeError) as error:
        raise EmoStreamError(
            f"parameter burst_share is {share:g}, and this system gives no real-time priority ({error}): run as a user "
            "with CAP_SYS_NICE, or set it to 0"
        ) from error
    between_s = BURST_S * (1 - share) / share
    while True:
        time.sleep(random.expovariate(1 / between_s))
        upto_s = time.monotonic() + BURST_S
        while time.monotonic() < upto_s:
            pass


def stalls(stall_ms: float, pid: int) -> None:
    """Stop the process `pid` for `stall_ms`, once per second at a random moment; return when it has ended."""
    with suppress(ProcessLookupError):
        try:
            while True:
                before_s = random.uniform(0, STALLS_EVERY_S - stall_ms / 1000)
                time.sleep(before_s)
                os.kill(pid, signal.SIGSTOP)
                time.sleep(stall_ms / 1000)
                os.kill(pid, signal.SIGCONT)
                time.sleep(STALLS_EVERY_S - stall_ms / 1000 - before_s)
        finally:
            os.kill(pid, signal.SIGCONT)


def _end(signum: int, frame: object) -> None:
    sys.exit(0)


def main() -> None:
    """`python -m experiments.machine.planted`."""
    line = argparse.ArgumentParser(prog="python -m experiments.machine.planted", description="Disturb a run.")
    line.add_argument("kind", choices=("foreign", "bursts", "stalls"))
    line.add_argument("size", type=float, help="a share of one core, or milliseconds for stalls")
    line.add_argument("place", type=int, help="the core, or the process for stalls")
    options = line.parse_args()
    lifecycle.follow_parent()
    signal.signal(signal.SIGTERM, _end)

    def body() -> None:
        print("ready", flush=True)
        if options.kind == "foreign":
            foreign(options.size)
        elif options.kind == "bursts":
            bursts(options.size, options.place)
        else:
            stalls(options.size, options.place)

    lifecycle.run_main("experiments.machine.planted", body)


if __name__ == "__main__":
    main()
