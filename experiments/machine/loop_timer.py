"""A timer beside an event loop: how late the loop wakes up is how late its other timestamps may be."""

from __future__ import annotations

import asyncio
import time

import pandas as pd

from experiments.ledger import COLUMNS, TIMER_EVERY_S


class LoopTimer:
    """Wakes up every TIMER_EVERY_S while its task runs, and records by how much it overslept."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int]] = []

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            due_ns = time.monotonic_ns() + round(TIMER_EVERY_S * 1e9)
            await asyncio.sleep(TIMER_EVERY_S)
            self._rows.append((time.time_ns(), max(time.monotonic_ns() - due_ns, 0)))

    def frame(self) -> pd.DataFrame:
        """Return the frame `receivers_timer` of the ledger, in order of time."""
        return pd.DataFrame(self._rows, columns=list(COLUMNS["receivers_timer"]), dtype="int64")
