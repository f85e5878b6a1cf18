"""What a run varies, checked: the names of the notebooks' `parameters` cells."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args, get_origin, get_type_hints

from pipeline.errors import SettingError
from pipeline.settings import FIELDS as SETTINGS


@dataclass(frozen=True)
class Parameters:
    """What a run varies. The chain's own settings apply only to a chain that the run starts."""

    users: int = 100
    rate_per_s: float = 100.0
    clients: int = 100
    warm_up_triggers: int = 5
    measured_triggers: int = 20
    popularity: Literal["zipf", "uniform"] = "zipf"
    activity: Literal["uniform", "zipf"] = "uniform"
    arrivals: Literal["poisson", "bursts", "trace"] = "poisson"
    trace: str = ""
    speed: float = 1.0
    loop: Literal["open", "closed"] = "open"
    think_s: float = 1.0
    seed: int = 1
    slos: str = ""
    attach: str = ""
    clusters: int = 2
    subscribers: int = 2
    trigger_s: float = 6.0
    policy: Literal["ceil", "floor", "carry", "stochastic"] = "ceil"
    group_size: int = 10
    flush_ms: int = 500
    flush_phase: Literal["aligned", "free"] = "aligned"
    flush_lead_ms: int = 50
    ack: Literal["async", "durable"] = "async"
    ingest_workers: int = 2

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind))
        for name in ("users", "clients", "warm_up_triggers", "measured_triggers"):
            if getattr(self, name) < 1:
                raise SettingError(f"parameter {name} is {getattr(self, name)!r}: give 1 or more")
        for name, unit in (("rate_per_s", "reactions a second"), ("trigger_s", "seconds"), ("think_s", "seconds")):
            if not getattr(self, name) > 0:
                raise SettingError(f"parameter {name} is {getattr(self, name)!r}: give more than 0 {unit}")
        if not 1 <= self.speed <= 60:
            raise SettingError(f"parameter speed is {self.speed!r}: give 1 (as it was) to 60 (a minute in a second)")
        if (self.arrivals == "trace") != bool(self.trace):
            raise SettingError(
                f"parameters arrivals and trace are {self.arrivals!r} and {self.trace!r}: a trace is replayed with "
                "arrivals 'trace' and the path of its CSV in trace, and neither goes without the other"
            )
        if self.loop == "closed" and self.arrivals != "poisson":
            raise SettingError(
                f"parameters loop and arrivals are 'closed' and {self.arrivals!r}: users who wait for their answers "
                "follow no plan; leave arrivals at 'poisson', or use loop 'open'"
            )
        self.limits()

    def of_chain(self) -> dict[str, object]:
        """The parameters that are settings of the chain."""
        settings: dict[str, object] = {name: value for name, value in asdict(self).items() if name in SETTINGS}
        # The load's own rate a user is a matter of the design, not of politeness.
        return {**settings, "rate_per_user_s": 0}

    def limits(self) -> dict[str, float]:
        """The limits that `slos` sets, by summary key; raises SettingError where it is no such JSON object."""
        if not self.slos:
            return {}
        try:
            limits = json.loads(self.slos)
        except ValueError:
            limits = None
        if not isinstance(limits, dict) or not all(_is_number(limit) for limit in limits.values()):
            raise SettingError(
                f'parameter slos is {self.slos!r}: give a JSON object of limits, such as {{"e2e_excess_p99_s": 2.0}}'
            )
        return {name: float(limit) for name, limit in limits.items()}

    def command(self) -> str:
        """The command line that carries out a run with these parameters."""
        changed = [
            f"-p {field.name} {_quoted(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return " ".join(["python -m experiments run", *changed])

    @property
    def load_s(self) -> float:
        """How long the load lasts, seconds."""
        return (self.warm_up_triggers + self.measured_triggers) * self.trigger_s


PARAMETERS = tuple(field.name for field in fields(Parameters))


def checked(given: Mapping[str, object]) -> Parameters:
    """Return Parameters of names and values that came from a file; an unknown name is a SettingError."""
    for name in given:
        if name not in PARAMETERS:
            raise SettingError(f"there is no parameter {name!r}: use one of {', '.join(PARAMETERS)}")
    return Parameters(**given)  # type: ignore[arg-type]


def _checked(name: str, value: object, kind: object) -> object:
    """Return `value` as the type of its field; raise SettingError where it is of another."""
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        if value not in allowed:
            raise SettingError(f"parameter {name} is {value!r}: choose one of {', '.join(allowed)}")
    elif kind is float:
        if not _is_number(value):
            raise SettingError(f"parameter {name} is {value!r}: give a finite number")
        return float(value)  # type: ignore[arg-type]
    elif not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
        words = {int: "a whole number", str: "text"}[kind]  # type: ignore[index]
        raise SettingError(f"parameter {name} is {value!r}: give {words}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _quoted(value: object) -> str:
    text = str(value)
    return f"'{text}'" if set(text) & set(' "{}$*') else text
