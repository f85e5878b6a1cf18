"""When a stage that died is started again, and how often it may die before a chain gives up its start. No I/O."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable

from pipeline.backoff import bound_s

# A chain that is not ready yet gives up when a stage has died this often within this time: nobody uses it, and the
# cause is a setting or the machine.
DEATHS_MAX = 6
WITHIN_S = 60.0
# A chain that was ready starts it again every time, at once the first times, and then after longer and longer pauses.
AT_ONCE = 2
PAUSE_S, PAUSE_MOST_S = 1.0, 30.0
# A stage that has lived this long since its last death has recovered.
RECOVERED_S = 120.0


class Deaths:
    """Counts the deaths of every stage within the last WITHIN_S seconds."""

    def __init__(self) -> None:
        self._deaths: dict[str, deque[float]] = defaultdict(deque)
        self._last_s: dict[str, float] = {}
        self._in_a_row: dict[str, int] = {}

    def count(self, stage: str, now_s: float) -> int:
        """Record a death of `stage` at `now_s`; return its recent deaths, this one included."""
        self._deaths[stage].append(now_s)
        goes_on = now_s - self._last_s.get(stage, -RECOVERED_S) < RECOVERED_S
        self._in_a_row[stage] = self._in_a_row.get(stage, 0) + 1 if goes_on else 1
        self._last_s[stage] = now_s
        return self.recent(stage, now_s)

    def in_a_row(self, stage: str) -> int:
        """Return how many times `stage` died without having recovered in between."""
        return self._in_a_row.get(stage, 0)

    def recent(self, stage: str, now_s: float) -> int:
        """Return how often `stage` died within the last WITHIN_S seconds."""
        deaths = self._deaths[stage]
        while deaths and now_s - deaths[0] > WITHIN_S:
            deaths.popleft()
        return len(deaths)

    def forget(self, stage: str) -> None:
        """Forget the deaths of `stage`, which was stopped on purpose."""
        for known in (self._deaths, self._last_s, self._in_a_row):
            known.pop(stage, None)


def is_hopeless(deaths: int) -> bool:
    """Return whether a stage with this many recent deaths has died too often to be started again."""
    return deaths >= DEATHS_MAX


def pause_s(in_a_row: int, draw: Callable[[], float] = random.random) -> float:
    """Return how long a stage waits before it is started again after so many deaths in a row, seconds.

    The pause doubles up to PAUSE_MOST_S. Half of it is drawn at random (`draw()` is uniform in [0, 1)), so that stages
    that died of the same cause do not start all at once.
    """
    if in_a_row <= AT_ONCE:
        return 0.0
    return bound_s(in_a_row - AT_ONCE - 1, PAUSE_S, PAUSE_MOST_S) * (0.5 + draw() / 2)
