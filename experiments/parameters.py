"""What a run varies, checked: the names of the notebooks' `parameters` cells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from pipeline.errors import SettingError


@dataclass(frozen=True)
class Parameters:
    """What a run varies. The chain's own settings apply only to a chain that the run starts."""

    users: int = 100
    rate_per_s: float = 100.0
    clients: int = 100
    warm_up_triggers: int = 5
    measured_triggers: int = 20
    popularity: str = "zipf"
    seed: int = 1
    attach: str = ""
    clusters: int = 2
    subscribers: int = 2
    trigger_s: float = 6.0
    group_size: int = 10
    flush_ms: int = 500
    flush_phase: str = "aligned"
    flush_lead_ms: int = 50
    ack: str = "async"
    ingest_workers: int = 2

    def __post_init__(self) -> None:
        for name in ("users", "clients", "warm_up_triggers", "measured_triggers"):
            if getattr(self, name) < 1:
                raise SettingError(f"parameter {name} is {getattr(self, name)!r}: give 1 or more")
        if not self.rate_per_s > 0:
            raise SettingError(f"parameter rate_per_s is {self.rate_per_s!r}: give more than 0 reactions a second")

    def of_chain(self) -> dict[str, object]:
        """The parameters that are settings of the chain."""
        ours = (
            "users",
            "rate_per_s",
            "clients",
            "warm_up_triggers",
            "measured_triggers",
            "popularity",
            "seed",
        )
        settings: dict[str, object] = {
            name: value for name, value in asdict(self).items() if name not in (*ours, "attach")
        }
        # The load's own rate a user is a matter of the design, not of politeness.
        return {**settings, "rate_per_user_s": 0}

    def command(self) -> str:
        """The command line that carries out a run with these parameters."""
        changed = [
            f"-p {field.name} {getattr(self, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return " ".join(["python -m experiments run", *changed])

    @property
    def load_s(self) -> float:
        """How long the load lasts, seconds."""
        return (self.warm_up_triggers + self.measured_triggers) * self.trigger_s


PARAMETERS = tuple(field.name for field in fields(Parameters))
