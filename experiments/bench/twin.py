"""The benchmark of the instrument: what it reports of a twin, beside what was planted."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import ledger
from experiments.analysis.analyse import Analysis
from experiments.analysis.hops import HOPS
from experiments.parameters import Parameters
from experiments.run.measure import measure
from experiments.twin import process, settings, truth

# Delays that differ from delivery to delivery, so that a percentile is not the edge between two windows; one window is
# late by more than half a second. The faults are few: 99 in 100 pairs still arrive.
PLANTED: dict[str, Any] = {
    "accept_ms": [2.0, 6.0],
    "append_ms": [2.0, 8.0],
    "micro_batch_ms": [120.0, 200.0],
    "publish_ms": [3.0, 9.0],
    "cluster_ms": [3.0, 9.0],
    "subscriber_ms": [3.0, 9.0],
    "network_ms": [1.0, 40.0],
    "late_windows_ms": {9: 600.0},
    "lose": 0.001,
    "duplicate": 0.002,
    "alter": 0.002,
    "phantoms": {7: 20},
    "duplicate_deliveries": 0.02,
    "alter_deliveries": 0.02,
}
LOADS: dict[str, dict[str, Any]] = {
    "poisson": {"rate_per_s": 100.0},
    "bursts": {"rate_per_s": 50.0},
    "trace": {"speed": 20.0},
}
"""The arrivals, and what a run of them sets besides."""
CLIENTS = 8
TRIGGER_S = 1.0
WARM_UP_TRIGGERS, MEASURED_TRIGGERS = 4, 30


@dataclass(frozen=True)
class Errors:
    """What the instrument reported less what was planted: milliseconds, and a number of counts.

    `hop_error_ms` is the largest of the hops' medians, `hop` its name. `counts_wrong` adds up reactions in another
    window than they were counted in, cells of windows, and figures of the summary that must be exact.
    """

    excess_p50_error_ms: float
    excess_p99_error_ms: float
    worst_window_error_ms: float
    hop_error_ms: float
    hop: str
    counts_wrong: int
    twin_late_ms: float


def twin() -> dict[str, Any]:
    """Measure a twin under each kind of arrivals; return the largest errors, and each run's."""
    with tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch:
        runs = {
            arrivals: one(settings.build({"seed": number, "trigger_s": TRIGGER_S, **PLANTED}), arrivals, Path(scratch))
            for number, arrivals in enumerate(LOADS, 1)
        }
    rows = [asdict(errors) for errors in runs.values()]
    names = ("excess_p50_error_ms", "excess_p99_error_ms", "worst_window_error_ms", "hop_error_ms")
    return {
        **{name: max((row[name] for row in rows), key=abs) for name in names},
        "counts_wrong": sum(row["counts_wrong"] for row in rows),
        "clients": CLIENTS,
        "measured_triggers": MEASURED_TRIGGERS,
        "runs": dict(zip(runs, rows, strict=True)),
    }


def one(planted: settings.Twin, arrivals: str, scratch: Path, **changes: Any) -> Errors:
    """Measure one twin under these arrivals, in a folder of `scratch`; `changes` are parameters of the run."""
    folder = scratch / arrivals
    with process.running(planted, folder / "twin") as ready_file:
        parameters = {
            "arrivals": arrivals,
            "attach": str(ready_file),
            "clients": CLIENTS,
            # A fixed one, so that the late window is a measured one.
            "warm_up_triggers": WARM_UP_TRIGGERS,
            "warm_up_most_triggers": WARM_UP_TRIGGERS,
            "measured_triggers": MEASURED_TRIGGERS,
            "seed": planted.seed,
            **LOADS[arrivals],
            **changes,
        }
        result = measure(Parameters(**parameters), folder / "run")
    plan, windows = (pd.read_parquet(folder / "run" / f"{name}.parquet") for name in ("plan", "windows"))
    expected = truth.figures(folder / "twin" / process.TRUTH, plan, int(parameters["clients"]), planted)
    return errors(result.analysis, windows, expected)


def errors(found: Analysis, windows: pd.DataFrame, expected: truth.Figures) -> Errors:
    """Return how far an analysis is from what was planted; `windows` is the run's frame."""
    medians = dict(zip(found.hops["hop"], found.hops["p50_ms"], strict=True))
    hops = {hop: medians[hop] - expected.hops_ms[hop] for hop in HOPS if hop in expected.hops_ms}
    # Not max(key=abs): a hop without a figure must not pass as no error.
    worst = max(hops, key=lambda hop: abs(hops[hop]) if hops[hop] == hops[hop] else float("inf"))
    excess_s = {
        "excess_p50_error_ms": found.summary["e2e_excess_p50_s"] - expected.excess_p50_s,
        "excess_p99_error_ms": found.summary["e2e_excess_p99_s"] - expected.excess_p99_s,
        "worst_window_error_ms": found.summary["excess_worst_window_s"] - expected.worst_window_s,
    }
    return Errors(
        **{name: round(error_s * 1000, 3) for name, error_s in excess_s.items()},
        hop_error_ms=round(hops[worst], 3),
        hop=worst,
        counts_wrong=counts_wrong(found, windows, expected),
        twin_late_ms=round(expected.twin_late_ms, 3),
    )


def counts_wrong(found: Analysis, windows: pd.DataFrame, expected: truth.Figures) -> int:
    """Return how many counts the instrument has wrong."""
    placed = found.reactions[found.reactions["window"].notna()]
    window_of = dict(zip(placed["seq"].tolist(), placed["window"].astype("int64").tolist(), strict=True))
    cells = ledger.cells(windows)
    counts = dict(
        zip(zip(cells["window"].tolist(), cells["emoji_type"], strict=True), cells["count"].tolist(), strict=True)
    )
    return (
        len(window_of.items() ^ expected.window_of.items())
        + len(counts.items() ^ expected.counts.items())
        + sum(abs(int(found.summary[key]) - figure) for key, figure in expected.summary.items())
        + found.oracle.cells
        - found.oracle.equal
    )
