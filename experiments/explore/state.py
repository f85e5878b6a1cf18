"""What is to be seen of a session at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.analysis.floor import Waits
from experiments.explore.seen_windows import Seen
from experiments.parameters import Parameters

KEPT = 30
"""Windows that are remembered."""


@dataclass(frozen=True)
class State:
    """What is to be seen of a session at one moment. `phase`: idle | starting | running | draining | ended | failed.

    `counted` are reactions of ours in windows that arrived; the last KEPT of those `windows` are kept.
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
        """What sets the floor of this chain."""
        given = self.parameters
        return Waits(given.trigger_s, given.flush_ms / 1000, given.flush_phase, given.flush_lead_ms / 1000)
