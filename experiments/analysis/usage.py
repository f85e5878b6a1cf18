"""The mean number of cores that each stage used during a run, from samples of its CPU time."""

from __future__ import annotations

import pandas as pd

from experiments.units import NS_PER_S

MACHINE = "machine"
"""The stage that stands for the whole machine."""
INTERRUPTS = "interrupts"
"""The stage that stands for the kernel's interrupts, which belong to no process: under load, those of loopback."""
OTHERS = "others"
NO_STAGES = (MACHINE, INTERRUPTS, OTHERS)
"""What has a share of the machine, and is no stage of a run."""


def shares(usage: pd.DataFrame, start_ns: int, end_ns: int) -> dict[str, float]:
    """Return the mean number of cores each stage used between the two moments, and `others`: all the rest.

    Only samples inside count; a stage with fewer than two is left out. `others` is the rest of the machine: other
    work that may have distorted the run.
    """
    inside = usage[(usage["t_ns"] >= start_ns) & (usage["t_ns"] <= end_ns)]
    result: dict[str, float] = {}
    for stage, rows in inside.groupby("stage"):
        first, last = rows.iloc[0], rows.iloc[-1]
        if last["t_ns"] > first["t_ns"]:
            spent_s = float(last["cpu_s"] - first["cpu_s"])
            result[str(stage)] = max(spent_s, 0.0) * NS_PER_S / float(last["t_ns"] - first["t_ns"])
    if MACHINE in result:
        known = sum(share for stage, share in result.items() if stage != MACHINE)
        result[OTHERS] = max(result[MACHINE] - known, 0.0)
    return result
