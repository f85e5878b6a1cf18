"""The closed-loop load of a run: Locust beside the chain, each user waits for its answer.

The number of users is the "concurrent users" axis. A slow chain gets fewer requests: latency counts from the actual
send, and is not comparable with the open loop's.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from experiments import environment
from experiments.parameters import AFTER_TRIGGERS, Parameters
from experiments.units import NS_PER_S
from pipeline.errors import EmoStreamError

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# From Locust's start until all users have started.
SPAWN_S = 2.0
# How long a user may wait at the end for an answer under way.
STOP_S = 30
OVERTIME_S = 60.0


def run(parameters: Parameters, ingest_url: str, out_dir: Path, step: Callable[[str, float], None]) -> None:
    """Let `parameters.users` react for `parameters.load_s`; leave `plan.parquet` and `sent.parquet` in `out_dir`.

    As in the open loop the load begins at a moment drawn from U(0, trigger_s), warm-up and measurement each last a
    whole number of triggers, and the load goes on for one more. `step(what, seconds of load done)` reports the
    progress. Raises EmoStreamError naming Locust's log if it fails.
    """
    # Locust runs in it.
    out_dir = out_dir.resolve()
    offset_s = float(np.random.default_rng(parameters.seed).uniform(0, parameters.trigger_s))
    log_path = out_dir / "locust.log"
    with log_path.open("wb") as log:
        locust = subprocess.Popen(
            command(parameters, ingest_url, out_dir, SPAWN_S + offset_s),
            env=locust_environment(environment.own(os.environ), out_dir),
            cwd=out_dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            _follow(locust, parameters, step)
        finally:
            if locust.poll() is None:
                locust.terminate()
            # The rest of its output is its table of statistics.
            log.write(locust.communicate(timeout=STOP_S + 10)[0])
    if locust.returncode != 0 or not (out_dir / "plan.parquet").exists():
        raise EmoStreamError(f"the closed-loop load failed with status {locust.returncode}: see {log_path}")


def _follow(locust: subprocess.Popen[bytes], parameters: Parameters, step: Callable[[str, float], None]) -> None:
    """Report the progress until Locust has ended; raise EmoStreamError if it does not end in time."""
    assert locust.stdout is not None
    word, _, start_ns = locust.stdout.readline().partition(b" ")
    if word != b"start":
        return
    warm_up_s = parameters.warm_up_triggers * parameters.trigger_s
    while locust.poll() is None:
        done_s = (time.time_ns() - int(start_ns)) / NS_PER_S
        step("warming up" if done_s < warm_up_s else "measuring", max(0.0, done_s))
        if done_s > parameters.load_s + OVERTIME_S:
            raise EmoStreamError(f"Locust did not end within {OVERTIME_S:g} s after the end of the load")
        time.sleep(0.5)


def locust_environment(env: Mapping[str, str], out_dir: Path) -> dict[str, str]:
    """Return `env` with `out_dir` as the home.

    Besides its command line Locust reads `.locust.conf` in the home, and `locust.conf` and `pyproject.toml` in the
    working directory; a run's directory has none of them.
    """
    # The packages of a user are below the home as well.
    return {**env, "HOME": str(out_dir), "PYTHONUSERBASE": site.getuserbase()}


def command(parameters: Parameters, ingest_url: str, out_dir: Path, start_after_s: float) -> list[str]:
    """Return Locust's command line for the load of a run."""
    options = {
        "--users": parameters.users,
        # All within a second; each then waits for the start.
        "--spawn-rate": parameters.users,
        "--stop-timeout": STOP_S,
        "--host": ingest_url,
        "--loglevel": "WARNING",
        # A refusal by ingest is a result; the ledger has it.
        "--exit-code-on-error": 0,
        "--think-s": parameters.think_s,
        "--popularity": parameters.popularity,
        "--seed": parameters.seed,
        "--ledger": out_dir,
        "--start-after-s": start_after_s,
        "--warm-up-s": parameters.warm_up_triggers * parameters.trigger_s,
        "--load-s": parameters.load_s,
        "--after-s": AFTER_TRIGGERS * parameters.trigger_s,
        # Its own statistics.
        "--csv": out_dir / "locust",
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", *words, "Fan"]
