"""The closed-loop load of a run: Locust beside the chain, each user waiting for its answer.

N users who wait are the "concurrent users" axis. A slow chain is asked less: latency counts from the actual send, and
is not comparable with the open loop's.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import files
from experiments.parameters import Parameters
from experiments.schedule import NS_PER_S
from pipeline.errors import EmoStreamError

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# Time for Locust to start and to let every user in.
LEAD_S = 6.0
# A user whose answer is under way may wait so long for it before it is given up.
STOP_S = 30
OVERTIME_S = 60.0


def run(parameters: Parameters, ingest_url: str, out_dir: Path, step: Callable[[str, float], None]) -> None:
    """Let `parameters.users` react for `parameters.load_s`; leave `plan.parquet` and `sent.parquet` in `out_dir`.

    As in the open loop the load begins at a moment drawn from U(0, trigger_s), and warm-up and measurement each last
    a whole number of triggers. `step(what, seconds of load done)` is told how far it is. Raises EmoStreamError naming
    Locust's log if it fails.
    """
    offset_s = np.random.default_rng(parameters.seed).uniform(0, parameters.trigger_s)
    start_ns = time.time_ns() + round((LEAD_S + offset_s) * NS_PER_S)
    measured_ns = start_ns + round(parameters.warm_up_triggers * parameters.trigger_s * NS_PER_S)
    end_ns = start_ns + round(parameters.load_s * NS_PER_S)
    log_path = out_dir / "locust.log"
    with log_path.open("wb") as log:
        locust = subprocess.Popen(
            command(parameters, ingest_url, out_dir, start_ns, end_ns), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        while locust.poll() is None:
            now_ns = time.time_ns()
            step("warming up" if now_ns < measured_ns else "measuring", max(0.0, (now_ns - start_ns) / NS_PER_S))
            if now_ns > end_ns + OVERTIME_S * NS_PER_S:
                raise EmoStreamError(f"Locust did not end {OVERTIME_S:g} s after the load should have: see {log_path}")
            time.sleep(0.5)
    finally:
        if locust.poll() is None:
            locust.terminate()
            locust.wait(10)
    plan_path = out_dir / "plan.parquet"
    if locust.returncode != 0 or not plan_path.exists():
        raise EmoStreamError(f"the closed-loop load failed with status {locust.returncode}: see {log_path}")
    files.to_parquet(phased(pd.read_parquet(plan_path), measured_ns), plan_path)


def command(parameters: Parameters, ingest_url: str, out_dir: Path, start_ns: int, end_ns: int) -> list[str]:
    """Return Locust's command line for a load from `start_ns` until `end_ns`."""
    # Users stop by themselves at the end; the run time only ends the process, once they have.
    run_s = math.ceil((end_ns - time.time_ns()) / NS_PER_S) + 1
    options = {
        "--users": parameters.users,
        # All within a second; each then waits for the start.
        "--spawn-rate": parameters.users,
        "--run-time": f"{run_s}s",
        "--stop-timeout": STOP_S,
        "--host": ingest_url,
        "--loglevel": "WARNING",
        # What ingest refused is a result, and stands in the ledger.
        "--exit-code-on-error": 0,
        "--think-s": parameters.think_s,
        "--popularity": parameters.popularity,
        "--seed": parameters.seed,
        "--ledger": out_dir,
        "--start-ns": start_ns,
        "--end-ns": end_ns,
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", *words]


def phased(plan: pd.DataFrame, measured_ns: int) -> pd.DataFrame:
    """Return the plan with all that went out before `measured_ns` marked as warm-up."""
    phases = np.where(plan["t_intended_ns"] < measured_ns, "warm-up", "measured")
    return plan.assign(phase=phases.astype(object))
