"""What a run varies, checked: the names of the notebooks' `parameters` cells.

A parameter that is also a setting of the chain takes its type, bounds and default from `pipeline.settings`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta

from pipeline.errors import SettingError
from pipeline.settings import FIELDS as SETTINGS
from pipeline.settings import Settings
from pipeline.shell import command, path_word

CHAIN = Settings()
"""The chain's defaults."""
PATHS = ("trace", "attach")
AFTER_TRIGGERS = 1
"""The load goes on for this long after the measured phase, so that the last window of it is whole."""
JUDGED_TRIGGERS = 9
"""With fewer measured triggers nothing is said of a run's steadiness, and the length of its warm-up is fixed."""


@dataclass(frozen=True)
class Parameters:
    """What a run varies. The chain's own settings apply only to a chain that the run starts.

    `machine="shared"` is for a check that everything works, beside other work, as in CI: what other processes took is
    recorded and not judged, and the report says that its times may not be quoted.
    """

    users: Annotated[int, Meta(ge=1)] = 100
    rate_per_s: Annotated[float, Meta(gt=0)] = 100.0
    clients: Annotated[int, Meta(ge=1)] = 100
    warm_up_triggers: Annotated[int, Meta(ge=1)] = 5
    warm_up_most_triggers: Annotated[int, Meta(ge=1)] = 20
    measured_triggers: Annotated[int, Meta(ge=1)] = 20
    popularity: Literal["zipf", "uniform"] = "zipf"
    activity: Literal["uniform", "zipf"] = "uniform"
    arrivals: Literal["poisson", "bursts", "trace"] = "poisson"
    trace: str = ""
    speed: Annotated[float, Meta(ge=1, le=60)] = 1.0
    array_share: Annotated[float, Meta(ge=0, le=1)] = 0.02
    forms_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    invalid_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.01
    loop: Literal["open", "closed"] = "open"
    think_s: Annotated[float, Meta(gt=0)] = 1.0
    seed: Annotated[int, Meta(ge=0)] = 1
    slos: str = ""
    attach: str = ""
    machine: Literal["own", "shared"] = "own"
    foreign_share: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    burst_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    stall_ms: Annotated[float, Meta(ge=0, le=500)] = 0.0
    clusters: int = CHAIN.clusters
    subscribers: int = CHAIN.subscribers
    trigger_s: float = CHAIN.trigger_s
    policy: str = CHAIN.policy
    group_size: int = CHAIN.group_size
    flush_ms: int = CHAIN.flush_ms
    flush_phase: str = CHAIN.flush_phase
    flush_lead_ms: int = CHAIN.flush_lead_ms
    ack: str = CHAIN.ack
    ingest_workers: int = CHAIN.ingest_workers

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            object.__setattr__(self, name, bounded(name, getattr(self, name)))
        if self.trace and self.arrivals != "trace":
            raise SettingError(
                f"parameters trace and arrivals are {self.trace!r} and {self.arrivals!r}: set arrivals to 'trace' to "
                "replay the recording, or leave trace empty"
            )
        if self.loop == "closed" and self.arrivals != "poisson":
            raise SettingError(
                f"parameters loop and arrivals are 'closed' and {self.arrivals!r}: users who wait for their answers "
                "cannot follow a plan; leave arrivals at 'poisson', or set loop to 'open'"
            )
        self.limits()

    def of_chain(self) -> dict[str, object]:
        """The parameters that are settings of the chain."""
        settings: dict[str, object] = {name: value for name, value in asdict(self).items() if name in SETTINGS}
        # The design decides how often a user reacts; the limit for strangers does not apply.
        return {**settings, "rate_per_user_s": 0}

    def limits(self) -> dict[str, float]:
        """The limits in `slos`, by summary key. Raises SettingError as `limits_of` does."""
        return limits_of(self.slos)

    def command(self) -> str:
        """The command that starts a run with these parameters."""
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return command_of(changed)

    @property
    def load_s(self) -> float:
        """How long the load lasts, seconds; longer if its warm-up ends later than it may."""
        return (self.warm_up_triggers + self.measured_triggers + AFTER_TRIGGERS) * self.trigger_s

    @property
    def longest_warm_up(self) -> int:
        """How many triggers the warm-up may last: `warm_up_triggers` exactly, unless it ends when the windows settle.

        It is fixed for a short measurement, for users who wait for their answers and for a recording, whose reactions
        are those of their moments.
        """
        fixed = self.loop == "closed" or self.arrivals == "trace" or self.measured_triggers < JUDGED_TRIGGERS
        return self.warm_up_triggers if fixed else max(self.warm_up_triggers, self.warm_up_most_triggers)


PARAMETERS = tuple(field.name for field in fields(Parameters))
_HINTS = get_type_hints(Parameters, include_extras=True)


def checked(given: Mapping[str, object]) -> Parameters:
    """Return Parameters of names and values that came from a file; an unknown name is a SettingError."""
    for name in given:
        if name not in PARAMETERS:
            raise SettingError(f"there is no parameter {name!r}: use one of {', '.join(PARAMETERS)}")
    return Parameters(**given)  # type: ignore[arg-type]


def bounded(name: str, value: Any) -> Any:
    """Return `value` as the parameter `name` has it. Raises SettingError for another type or a value out of bounds."""
    kind = SETTINGS[name].type if name in SETTINGS else _HINTS[name]
    bounds = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SettingError(f"parameter {name} is {value!r}: choose one of {', '.join(get_args(kind))}")
    elif kind is float:
        if not _is_number(value):
            raise SettingError(f"parameter {name} is {value!r}: give a finite number")
        value = float(value)
    elif not isinstance(value, kind) or isinstance(value, bool):
        raise SettingError(f"parameter {name} is {value!r}: give {'text' if kind is str else 'a whole number'}")
    for meta in bounds:
        _within(name, value, meta)
    return value


def _within(name: str, value: Any, bounds: Meta) -> None:
    """Raise SettingError, which says what is allowed, for a value out of `bounds`."""
    above, least, most = bounds.gt, bounds.ge, bounds.le
    low = f"more than {above:g}" if above is not None else f"{least:g} or more" if least is not None else ""
    if (above is not None and value <= above) or (least is not None and value < least):
        raise SettingError(f"parameter {name} is {value!r}: give {low}{f', at most {most:g}' if most else ''}")
    if most is not None and value > most:
        raise SettingError(f"parameter {name} is {value!r}: give at most {most:g}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def command_of(given: Mapping[str, object]) -> str:
    """Return the command that starts a run with the parameters `given`; `trace` and `attach` are paths."""
    words = [("-p", name, path_word(value) if name in PATHS else str(value)) for name, value in given.items()]
    return command("experiments", "run", *chain.from_iterable(words))


def limits_of(slos: object) -> dict[str, float]:
    """Return the limits in the parameter `slos`, by summary key; an empty text has none.

    Raises SettingError for anything but a JSON object of numbers.
    """
    try:
        limits = json.loads(slos or "{}", object_pairs_hook=_each_once) if isinstance(slos, str) else None
    except (ValueError, RecursionError):
        limits = None
    if not isinstance(limits, dict) or not all(_is_number(limit) for limit in limits.values()):
        raise SettingError(
            f"parameter slos is {slos!r}: give a JSON object of limits, each name once, such as "
            '{"e2e_excess_p99_s": 2.0}'
        )
    return {name: float(limit) for name, limit in limits.items()}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)
