"""The processes of the open-loop load: they send a plan as it is, without waiting for answers.

`python -m experiments.load PLAN.parquet SENT.parquet URL` posts each row's reaction at its intended time, in a request
of its own or in that which the plan's column `request` names, and writes `seq, t_sent_ns, t_answered_ns, status` (0: no
answer), one row per reaction sent. `--invalid FILE` sends the requests of the frame `invalid` beside them, and writes
their answers into it. SIGTERM ends it early; it then writes the rows sent so far. At SIGUSR1 it sends nothing more, and
ends once all is answered. If one process would not keep up, several share the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd
import uvloop
from numpy.typing import NDArray

from experiments import environment, files
from experiments.load.sender import CONNECTIONS_MAX, Sent, place_of, send
from experiments.machine.scheduling import go_first
from experiments.units import NS_PER_MS, NS_PER_S
from pipeline import lifecycle
from pipeline.errors import EmoStreamError
from pipeline.file_limit import raise_file_limit

# One process sends this many in the busiest second with a third of a core; a second one costs the chain CPU.
PER_PROCESS_S = 15_000
# Time to start, to read the plan and to make its requests. On a machine too busy for that the load starts late and
# catches up while the chain warms up.
START_S = 6.0
PER_REACTION_S = 0.00001
# Between two looks for a plan that is not there yet.
AWAIT_S = 0.1
# File descriptors that are not connections.
OTHER_FILES = 64


def processes_for(due_ns: NDArray[np.int64], cores: int) -> int:
    """Return how many processes send a plan: by its busiest second, at most one per core."""
    if len(due_ns) == 0:
        return 1
    busiest = int(np.bincount((due_ns - due_ns.min()) // NS_PER_S).max())
    return max(1, min(cores, math.ceil(busiest / PER_PROCESS_S)))


def postponed(plan: pd.DataFrame, asked_ns: int, step_ns: int = NS_PER_MS) -> pd.DataFrame:
    """Return `plan`, which was made for a start at `asked_ns`, moved so that there is time to start its senders.

    It moves by a multiple of `step_ns`: of a millisecond, so that reactions share a microsecond after it exactly if
    they did before, or of the trigger interval, so that they keep their places on its grid.
    """
    lead_ns = time.time_ns() - asked_ns + start_ns(plan)
    return plan.assign(t_intended_ns=plan["t_intended_ns"] + -(-lead_ns // step_ns) * step_ns)


def senders_of(plan: pd.DataFrame) -> int:
    """Return how many processes send `plan` on this machine."""
    return processes_for(plan["t_intended_ns"].to_numpy(dtype=np.int64), os.cpu_count() or 1)


def start_ns(plan: pd.DataFrame) -> int:
    """Return how long the senders of `plan` may take to start, ns."""
    # Several senders start only after the process that starts them.
    starts = 1 if senders_of(plan) == 1 else 2
    return round((starts * START_S + len(plan) * PER_REACTION_S) * NS_PER_S)


def part_of(plan: pd.DataFrame, part: int, parts: int) -> pd.DataFrame:
    """Return every `parts`-th request of `plan`, from the `part`-th on."""
    numbers = plan["request"].to_numpy() if "request" in plan else np.arange(len(plan))
    own: pd.DataFrame = plan[numbers % parts == part]
    return own


def send_part(plan: Path, sent: Path, url: str, bad: Path | None, part: int, parts: int) -> None:
    """Send the `part`-th of `parts` parts of the file `plan`, and write `sent`; the first part sends `bad` as well."""
    rows = part_of(pd.read_parquet(plan), part, parts)
    beside = pd.read_parquet(bad) if bad is not None and part == 0 else None
    connections = min(CONNECTIONS_MAX, raise_file_limit() - OTHER_FILES)
    go_first()
    outcome = uvloop.run(_until_signal(rows, url, connections, beside))
    files.to_parquet(outcome.reactions, sent)
    if bad is not None and part == 0:
        files.to_parquet(outcome.invalid, bad)


async def _until_signal(rows: pd.DataFrame, url: str, connections: int, beside: pd.DataFrame | None) -> Sent:
    stop, enough = asyncio.Event(), asyncio.Event()
    for signum, event in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGUSR1, enough)):
        asyncio.get_running_loop().add_signal_handler(signum, event.set)
    # The plan is many objects that live to the end. A full collection visits each of them and takes some hundred
    # milliseconds in which nothing is sent. Sending itself leaves no cycles behind.
    gc.collect()
    gc.disable()
    return await send(rows, url, connections, stop, enough, beside)


def send_parts(plan: Path, sent: Path, url: str, parts: int, *options: str) -> None:
    """Send the file `plan` from `parts` processes, each with `options`, and write `sent`.

    SIGTERM and SIGUSR1 are passed on to each.

    Raises EmoStreamError when one of them failed; the rows of the others are written nevertheless.
    """
    parts_sent = [sent.with_name(f"{sent.name}.{part}") for part in range(parts)]
    workers: list[subprocess.Popen[bytes]] = []
    stopped = False

    def pass_on(signum: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = stopped or signum != signal.SIGUSR1
        for worker in workers:
            worker.send_signal(signal.SIGUSR1 if signum == signal.SIGUSR1 else signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    signal.signal(signal.SIGUSR1, pass_on)
    env = {**environment.own(os.environ), **lifecycle.as_parent()}
    for part, path in enumerate(parts_sent):
        words = [str(plan), str(path), url, *options, "--part", f"{part}/{parts}"]
        workers.append(subprocess.Popen([sys.executable, "-m", "experiments.load", *words], env=env))
    if stopped:
        pass_on(signal.SIGTERM, None)
    statuses = [worker.wait() for worker in workers]
    frames = [pd.read_parquet(path) for path in parts_sent if path.exists()]
    if frames:
        files.to_parquet(pd.concat(frames).sort_values("seq"), sent)
    for path in parts_sent:
        path.unlink(missing_ok=True)
    if any(statuses) and not stopped:
        raise EmoStreamError(f"the {parts} senders ended with status {statuses}: see their messages above")


def main() -> None:
    """`python -m experiments.load`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.load", description="Send a plan, without waiting for answers (open loop)."
    )
    line.add_argument("plan", type=Path, help="parquet with seq, user_id, emoji_type, t_intended_ns")
    line.add_argument("sent", type=Path, help="parquet to write")
    line.add_argument("url", help="base URL of ingest")
    line.add_argument("--invalid", type=Path, help="parquet with case, expected, t_intended_ns; gets the answers")
    line.add_argument("--processes", type=int, default=0, help="how many; 0: as the plan's busiest second needs")
    line.add_argument("--wait", action="store_true", help="start now, and wait until the plan is there")
    line.add_argument("--part", help=argparse.SUPPRESS)
    options = line.parse_args()
    lifecycle.follow_parent()

    def body() -> None:
        # Before anything is read or started.
        place_of(options.url)
        if options.wait and (options.part or options.processes < 2):
            while not options.plan.exists():
                time.sleep(AWAIT_S)
        if options.part:
            part, _, parts = options.part.partition("/")
            send_part(options.plan, options.sent, options.url, options.invalid, int(part), int(parts))
            return
        processes = options.processes or senders_of(pd.read_parquet(options.plan, columns=["t_intended_ns"]))
        if processes > 1:
            beside = ["--invalid", str(options.invalid)] if options.invalid else []
            waits = ["--wait"] if options.wait else []
            send_parts(options.plan, options.sent, options.url, processes, *beside, *waits)
        else:
            send_part(options.plan, options.sent, options.url, options.invalid, 0, 1)

    lifecycle.run_main("experiments.load", body)
    # All is written. Arrow's threads abort a process, on a busy machine, that ends its interpreter while they start
    # (apache/arrow#34314).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
