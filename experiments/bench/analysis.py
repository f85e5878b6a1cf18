"""The benchmark of the analysis: time and memory from the ledger of one and of ten million reactions to its report.

`python -m experiments.bench.analysis make|report RUN_DIR` is one half, in a process of its own: the memory for making
the run must not count as the analysis's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments import files
from experiments.campaign import reanalyse
from experiments.progress import Progress
from experiments.report import run_page
from experiments.synthetic import run as synthetic
from pipeline.errors import EmoStreamError

REACTIONS = 1_000_000
# For the estimate of the time left: to make reactions, and to analyse them.
MADE_PER_S, ANALYSED_PER_S = 150_000, 300_000
CLIENTS = 100
USERS = 4_000
WARM_UP_TRIGGERS, MEASURED_TRIGGERS, TRIGGER_S = 5, 75, 6.0


def analysis(reactions: int = REACTIONS) -> dict[str, Any]:
    """Make a run of this many reactions, and one of ten times as many; analyse each in a new process.

    Returns `reactions`, and time and memory of both.
    """
    with Progress(11 * reactions * (1 / MADE_PER_S + 1 / ANALYSED_PER_S)) as progress:
        figures, of_ten = _measured(reactions, progress), _measured(10 * reactions, progress)
    return figures | {f"{name}_10m": of_ten[name] for name in ("total_s", "peak_rss_mb")}


def _measured(reactions: int, progress: Progress) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch:
        progress.begin(f"making a run of {reactions:,} reactions", reactions / MADE_PER_S)
        _half("make", scratch, "--reactions", str(reactions))
        progress.begin("analysing it and writing its report", reactions / ANALYSED_PER_S)
        figures: dict[str, Any] = json.loads(_half("report", scratch))
    return figures


def _half(half: str, scratch: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench.analysis", half, scratch, *options],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise EmoStreamError(f"the benchmark's {half} ended with status {done.returncode}: see its message above")
    return done.stdout


def make(run_dir: Path, reactions: int) -> None:
    """Write the made-up run's frames and manifest, as a measured run leaves them."""
    run = synthetic.make_run(
        users=USERS,
        clients=CLIENTS,
        rate_per_s=reactions / ((WARM_UP_TRIGGERS + MEASURED_TRIGGERS) * TRIGGER_S),
        warm_up_triggers=WARM_UP_TRIGGERS,
        measured_triggers=MEASURED_TRIGGERS,
        trigger_s=TRIGGER_S,
    )
    for name, frame in run.frames.items():
        files.to_parquet(frame, run_dir / f"{name}.parquet")
    files.write_text(run_dir / "manifest.json", json.dumps(run.manifest | {"parameters": run.parameters}))


def timed_report(run_dir: Path) -> dict[str, Any]:
    """Read the run back, analyse it and write its report; return seconds, and this process's peak memory."""
    started_s = time.perf_counter()
    result, about = reanalyse.analysed(run_dir)
    analysed_s = time.perf_counter()
    run_page.write(run_dir, result, about["parameters"], about)
    ended_s = time.perf_counter()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "reactions": len(result.reactions),
        "analyse_s": round(analysed_s - started_s, 2),
        "report_s": round(ended_s - analysed_s, 2),
        "total_s": round(ended_s - started_s, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit),
    }


def main() -> None:
    """`python -m experiments.bench.analysis`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.bench.analysis",
        description="Make a run whose truth is known, or analyse it and write its report.",
    )
    line.add_argument("half", choices=("make", "report"), help="make a run, or analyse it")
    line.add_argument("run_dir", type=Path, help="directory of the run")
    line.add_argument("--reactions", type=int, default=REACTIONS, help="how many to make; default: %(default)s")
    options = line.parse_args()
    try:
        if options.half == "make":
            make(options.run_dir, options.reactions)
        else:
            print(json.dumps(timed_report(options.run_dir)))
    except EmoStreamError as error:
        sys.exit(f"experiments.bench.analysis: {error}")


if __name__ == "__main__":
    main()
