"""The mean number of cores that each stage used during a run, from samples of its CPU time."""

from __future__ import annotations

import pandas as pd

from experiments.units import NS_PER_S

MACHINE = "machine"
"""The stage that stands for the whole machine."""
INTERRUPTS = "interrupts"
"""The stage that stands for the kernel's interrupts: under load, most are those of loopback."""
OTHERS = "others"
"""The stage that stands for all processes of the machine that are of no stage of the run."""
NO_STAGES = (MACHINE, INTERRUPTS, OTHERS)
"""What has a share of the machine, and is no stage of a run."""


def shares(usage: pd.DataFrame, start_ns: int, end_ns: int) -> dict[str, float]:
    """Return the mean number of cores each stage used between the two moments, and `others`: what is not the run's.

    Only samples inside count; a stage with fewer than two is left out. `others` is the larger of two readings. The sum
    over all other processes is exact, and does not see those of another container or user. The rest of the machine,
    without stages and interrupts, sees them too, to some hundredths of a core: the kernel knows the machine's use only
    from looking at each tick what runs. Where it counts a process's interrupts in the process's time as well, that
    reading is too small by them, and work of that size in another container is not seen.
    """
    inside = usage[(usage["t_ns"] >= start_ns) & (usage["t_ns"] <= end_ns)]
    result: dict[str, float] = {}
    for stage, rows in inside.groupby("stage"):
        first, last = rows.iloc[0], rows.iloc[-1]
        if last["t_ns"] > first["t_ns"]:
            spent_s = float(last["cpu_s"] - first["cpu_s"])
            result[str(stage)] = max(spent_s, 0.0) * NS_PER_S / float(last["t_ns"] - first["t_ns"])
    if MACHINE in result:
        known = sum(share for stage, share in result.items() if stage not in (MACHINE, OTHERS))
        result[OTHERS] = max(result.get(OTHERS, 0.0), result[MACHINE] - known)
    return result
