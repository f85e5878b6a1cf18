"""Make the plan of a run from its parameters."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pandas as pd

from experiments.load import recording, trace
from experiments.load.forms import as_real_senders
from experiments.load.schedule import poisson_plan, user_names
from experiments.parameters import AFTER_TRIGGERS, Parameters
from experiments.units import NS_PER_S
from pipeline.errors import SettingError


def plan_of(parameters: Parameters, start_ns: int) -> pd.DataFrame:
    """Return the plan of an open-loop run, by its `arrivals`; the load begins up to two triggers after `start_ns`.

    Its place on the trigger grid, the multiples of the interval, follows from the seed: the same seed cuts the same
    reactions into the same windows, whenever the load begins. The warm-up is the longest that there may be, and the
    load goes on for AFTER_TRIGGERS after the measured phase.

    It is sent as `forms.as_real_senders` says.

    A trace brings its own users, emoji and rate: `users`, `rate_per_s`, `activity` and `popularity` do not apply to
    it. Without a path the project's own recording is replayed. Raises SettingError where no plan can be made of the
    parameters, or one of which nothing would be measured.
    """
    trigger_ns = round(parameters.trigger_s * NS_PER_S)
    start_ns = -(-start_ns // trigger_ns) * trigger_ns
    if parameters.arrivals == "trace":
        plan = trace.trace_plan(
            recorded(parameters.trace),
            parameters.speed,
            start_ns,
            trigger_s=parameters.trigger_s,
            warm_up_triggers=parameters.longest_warm_up,
            measured_triggers=parameters.measured_triggers,
            seed=parameters.seed,
            after_triggers=AFTER_TRIGGERS,
        )
    else:
        plan = poisson_plan(
            user_names(parameters.users),
            parameters.rate_per_s,
            start_ns,
            trigger_s=parameters.trigger_s,
            warm_up_triggers=parameters.longest_warm_up,
            measured_triggers=parameters.measured_triggers,
            seed=parameters.seed,
            after_triggers=AFTER_TRIGGERS,
            weights=parameters.popularity,
            activity=parameters.activity,
            bursts=parameters.arrivals == "bursts",
        )
    if not (plan["phase"] == "measured").any():
        remedy = (
            "or change warm_up_triggers or speed, since the recording has a gap there"
            if parameters.arrivals == "trace"
            else "or raise the load"
        )
        raise SettingError(
            f"measured_triggers is {parameters.measured_triggers}, and no reaction falls into them: measure longer, "
            f"{remedy}"
        )
    return as_real_senders(plan, parameters.array_share, parameters.forms_share, parameters.seed)


def replayed_from_ms(parameters: Parameters) -> dict[str, int]:
    """Return what a manifest says of the recording: the offset of its first row, where the replay begins."""
    if parameters.arrivals != "trace":
        return {}
    return {"trace_replayed_from_ms": int(recorded(parameters.trace)["offset_ms"].iloc[0])}


def recorded(path: str) -> pd.DataFrame:
    """Return the recording at `path` as `trace.read` does, or where `path` is empty the project's own, made on demand.

    It is kept for the many plans that a design makes of one recording.
    """
    if not path:
        return _made()
    file = Path(path)
    return _read(file, file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache(maxsize=1)
def _made() -> pd.DataFrame:
    return recording.recorded()


@lru_cache(maxsize=1)
def _read(path: Path, changed_ns: int) -> pd.DataFrame:
    return trace.read(path)
