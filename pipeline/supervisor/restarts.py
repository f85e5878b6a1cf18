"""How often a stage may die before it is not started again. No I/O."""

from __future__ import annotations

from collections import defaultdict, deque

# A stage that dies this often within this time will not recover by another restart.
DEATHS_MAX = 6
WITHIN_S = 60.0


class Deaths:
    """Counts the deaths of every stage within the last WITHIN_S seconds."""

    def __init__(self) -> None:
        self._deaths: dict[str, deque[float]] = defaultdict(deque)

    def count(self, stage: str, now_s: float) -> int:
        """Record a death of `stage` at `now_s`; return its recent deaths, this one included."""
        self._deaths[stage].append(now_s)
        return self.recent(stage, now_s)

    def recent(self, stage: str, now_s: float) -> int:
        """Return how often `stage` died within the last WITHIN_S seconds."""
        deaths = self._deaths[stage]
        while deaths and now_s - deaths[0] > WITHIN_S:
            deaths.popleft()
        return len(deaths)

    def forget(self, stage: str) -> None:
        """Forget the deaths of `stage`, which was stopped on purpose."""
        self._deaths.pop(stage, None)


def is_hopeless(deaths: int) -> bool:
    """Return whether a stage with this many recent deaths has died too often to be started again."""
    return deaths >= DEATHS_MAX
