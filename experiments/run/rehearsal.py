"""What can be known of a run before anything starts: whether its chain, its load and its objectives are possible."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from experiments.analysis import verdict
from experiments.load import plan
from experiments.load.schedule import BURST_NS
from experiments.parameters import Parameters
from experiments.units import NS_PER_S
from pipeline.settings import build

# The most that is planned of each phase of a long load.
MOST_REACTIONS = 50_000
MOST_S = BURST_NS / NS_PER_S


def rehearse(parameters: Parameters, root: Path) -> None:
    """Raise SettingError if the chain, the load or the objectives cannot be as `parameters` say.

    A recording is sought from `root`, the folder in which the notebook is executed, and checked as a whole. Of any
    other load, a part is planned: length matters only if it has hardly a reaction, or no room for a burst. A chain that
    is up has settings of its own, so that a load for it is not planned here.
    """
    verdict.objectives(parameters.limits())
    build(parameters.of_chain())
    if parameters.loop == "closed" or parameters.attach:
        return
    if parameters.arrivals == "trace":
        short = replace(parameters, trace=str(root / parameters.trace) if parameters.trace else "")
    else:
        enough = math.ceil(max(MOST_S, MOST_REACTIONS / parameters.rate_per_s) / parameters.trigger_s)
        short = replace(
            parameters,
            warm_up_triggers=min(parameters.warm_up_triggers, enough),
            warm_up_most_triggers=min(parameters.warm_up_most_triggers, enough),
            measured_triggers=min(parameters.measured_triggers, enough),
        )
    plan.plan_of(short, 0)
