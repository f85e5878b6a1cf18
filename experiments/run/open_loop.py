"""The open-loop load of a run: a warm-up that ends when the chain's windows have settled, then the measured phase.

Two senders share the load. The first sends the warm-up, of which the plan has as much as there may be. When a
change-point test over its last windows finds none, the rest of the plan is moved to the earliest moment at which its
own sender, which has been waiting for it, can be ready, by a whole number of triggers: the measured reactions have the
same places on the trigger grid in every run with the seed, however long the warm-up lasted. At that moment the first
sender stops.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import environment, files
from experiments.load import invalid
from experiments.load.plan import plan_of
from experiments.load.sender_processes import postponed, senders_of, start_ns
from experiments.parameters import Parameters
from experiments.stats.steadiness import settled
from experiments.units import NS_PER_S
from pipeline import lifecycle
from pipeline.bus.base import Reader
from pipeline.bus.records import readable
from pipeline.errors import EmoStreamError
from pipeline.messages import decode_window

# The load ended long before; a process that still runs then will not end.
OVERTIME_S = 60.0
LOOK_S = 0.5

Steps = Callable[[str, float], None]


def run(parameters: Parameters, ingest_url: str, windows: Reader, run_dir: Path, step: Steps) -> dict[str, Any]:
    """Send the load of a run; leave `plan.parquet` and `sent.parquet` in `run_dir`.

    `windows` reads the windows of the run from the first on. `step(activity, seconds of load done)` reports the
    progress. Return what the manifest says of the warm-up: `triggers` (how long it lasted, in intervals), `settled`
    (None: its length was fixed), and `after_trigger_ms` of the windows by which that was decided, from trigger to
    emission. Raises EmoStreamError if a sender fails.
    """
    trigger_ns = round(parameters.trigger_s * NS_PER_S)
    asked_ns = time.time_ns()
    plan = postponed(plan_of(parameters, asked_ns), asked_ns, trigger_ns)
    begun_ns = int(plan["t_intended_ns"].iloc[0])
    warm_up = plan["phase"] == "warm-up"
    if parameters.longest_warm_up == parameters.warm_up_triggers or not warm_up.any():
        _beside(plan, parameters, run_dir / "invalid.parquet")
        files.to_parquet(plan, run_dir / "plan.parquet")
        with ExitStack() as stack:
            _finished(_started(stack, run_dir, "", ingest_url), plan, begun_ns, step)
        return {"triggers": parameters.warm_up_triggers, "settled": None, "after_trigger_ms": []}
    first, rest = plan[warm_up], plan[~warm_up]
    _beside(first, parameters, run_dir / "invalid.warm-up.parquet")
    files.to_parquet(first, run_dir / "plan.warm-up.parquet")
    with ExitStack() as stack:
        sender = _started(stack, run_dir, ".warm-up", ingest_url)
        # To start a process takes seconds on a busy machine; there is no warm-up behind which that could be caught up.
        waiting = "--wait", "--processes", str(senders_of(rest))
        measuring = _started(stack, run_dir, ".measured", ingest_url, *waiting)
        values_s, ended = _settled(sender, windows, rest, begun_ns, parameters, step)
        moved = moves(rest, trigger_ns, time.time_ns())
        rest = rest.assign(t_intended_ns=rest["t_intended_ns"] - moved * trigger_ns)
        _beside(rest, parameters, run_dir / "invalid.measured.parquet")
        # The sender must not find half of it.
        files.to_parquet(rest, run_dir / "plan.parquet")
        (run_dir / "plan.parquet").replace(run_dir / "plan.measured.parquet")
        measured_ns = int(rest["t_intended_ns"].iloc[0])
        while (left_s := (measured_ns - time.time_ns()) / NS_PER_S) > 0:
            _check(measuring)
            step("warming up", (time.time_ns() - begun_ns) / NS_PER_S)
            time.sleep(min(left_s, LOOK_S))
        if sender.poll() is None:
            sender.send_signal(signal.SIGUSR1)
        _finished(measuring, rest, begun_ns, step)
        _finished(sender, rest, begun_ns, step)
    parts = [
        run_dir / f"{kind}.{part}.parquet" for kind in ("plan", "sent", "invalid") for part in ("warm-up", "measured")
    ]
    sent = pd.concat([pd.read_parquet(path) for path in parts[2:4]])
    before, after = (pd.read_parquet(path) for path in parts[4:])
    # Of the warm-up's invalid requests, those that became due before it ended.
    bad = pd.concat([before[before["t_sent_ns"] > 0], after])
    files.to_parquet(bad.reset_index(drop=True), run_dir / "invalid.parquet")
    # What became due before the first sender stopped belongs to the load, sent or not; so does what it sent in the
    # moment until it stopped.
    due = (first["t_intended_ns"] < measured_ns) | first["seq"].isin(sent["seq"])
    whole = pd.concat([first[due], rest]).sort_values("t_intended_ns", kind="stable", ignore_index=True)
    files.to_parquet(whole, run_dir / "plan.parquet")
    files.to_parquet(sent.reset_index(drop=True), run_dir / "sent.parquet")
    for path in parts:
        path.unlink()
    return {
        "triggers": parameters.longest_warm_up - moved,
        "settled": ended,
        "after_trigger_ms": [round(value_s * 1000) for value_s in values_s],
    }


def moves(rest: pd.DataFrame, trigger_ns: int, now_ns: int) -> int:
    """Return by how many triggers `rest`, the plan from its measured phase on, can begin earlier, seen at `now_ns`."""
    return max(0, (int(rest["t_intended_ns"].iloc[0]) - now_ns - start_ns(rest)) // trigger_ns)


def _settled(
    sender: subprocess.Popen[bytes],
    windows: Reader,
    rest: pd.DataFrame,
    begun_ns: int,
    parameters: Parameters,
    step: Steps,
) -> tuple[list[float], bool]:
    """Follow the warm-up's windows until they have settled, or until it is as long as it may be; return the time from
    trigger to emission of each, s, and whether they settled.
    """
    values_s: list[float] = []
    trigger_ns = round(parameters.trigger_s * NS_PER_S)
    while True:
        _check(sender)
        for _, window in readable(windows.poll(LOOK_S), decode_window, "window"):
            values_s.append((window.emitted_ns - window.trigger_ns) / NS_PER_S)
        if len(values_s) >= parameters.warm_up_triggers and settled(values_s):
            return values_s, True
        if not moves(rest, trigger_ns, time.time_ns()):
            return values_s, False
        step("warming up", max(0.0, (time.time_ns() - begun_ns) / NS_PER_S))


def _beside(plan: pd.DataFrame, parameters: Parameters, path: Path) -> None:
    """Write the invalid requests that are sent beside a part of the plan."""
    files.to_parquet(invalid.planned(plan, parameters.invalid_share, parameters.seed), path)


def _started(stack: ExitStack, run_dir: Path, part: str, ingest_url: str, *options: str) -> subprocess.Popen[bytes]:
    """Start the sender of one part of the plan; it ends with `stack` at the latest."""
    plan, sent, bad = (str(run_dir / f"{kind}{part}.parquet") for kind in ("plan", "sent", "invalid"))
    sender = subprocess.Popen(
        [sys.executable, "-m", "experiments.load", plan, sent, ingest_url, "--invalid", bad, *options],
        # A load that outlives its run would disturb the next one.
        env={**environment.own(os.environ), **lifecycle.as_parent()},
    )
    stack.callback(_end, sender)
    return sender


def _finished(sender: subprocess.Popen[bytes], plan: pd.DataFrame, begun_ns: int, step: Steps) -> None:
    """Report the progress of `plan` until its sender has ended; raise EmoStreamError if it fails or does not end."""
    due = plan["t_intended_ns"]
    last_ns, measured_ns = int(due.iloc[-1]), int(due[plan["phase"] == "measured"].iloc[0])
    while sender.poll() is None:
        now_ns = time.time_ns()
        step("warming up" if now_ns < measured_ns else "measuring", max(0.0, (now_ns - begun_ns) / NS_PER_S))
        if now_ns > last_ns + OVERTIME_S * NS_PER_S:
            raise EmoStreamError(f"the load did not end {OVERTIME_S:g} s after its last reaction was due")
        time.sleep(LOOK_S)
    _check(sender)


def _check(sender: subprocess.Popen[bytes]) -> None:
    """Raise EmoStreamError if a sender has ended with an error."""
    if sender.poll():
        raise EmoStreamError(f"the load ended with status {sender.returncode}: see its message above")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    process.wait(10)
