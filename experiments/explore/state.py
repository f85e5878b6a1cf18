"""The state of a session at one moment, as a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.analysis.floor import Waits
from experiments.explore.seen_windows import Seen
from experiments.parameters import Parameters

KEPT = 30
"""How many windows are kept."""


@dataclass(frozen=True)
class State:
    """The state of a session at one moment. `phase`: idle | starting | running | draining | ended | failed.

    `counted` are our reactions in the windows that arrived; `windows` holds the last KEPT of these.
    """

    phase: str = "idle"
    rate_per_s: float = 0.0
    bursting: bool = False
    sent: int = 0
    accepted: int = 0
    refused: int = 0
    counted: int = 0
    arrived: int = 0
    windows: tuple[Seen, ...] = ()
    parameters: Parameters = field(default_factory=Parameters)
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing runs."""
        return self.phase in ("idle", "ended", "failed")

    @property
    def waits(self) -> Waits:
        """The waits that set the floor of this chain."""
        given = self.parameters
        return Waits(given.trigger_s, given.flush_ms / 1000, given.flush_phase, given.flush_lead_ms / 1000)
