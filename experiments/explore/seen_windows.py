"""The windows that one screen receives, and the latency of each one's reactions.

A window names the offsets it covers, and each record at them carries the time at which its reaction was due: every
latency is exact, even if others send to the same chain.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from experiments.analysis.latency import printable, rank_quantile
from experiments.units import NS_PER_S, NS_PER_US
from pipeline.bus.base import Reader, Record
from pipeline.errors import EmoStreamError
from pipeline.messages import Event, TypeCount, Window

READ_S = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_decode = msgspec.json.Decoder(Event).decode


@dataclass(frozen=True)
class Seen:
    """A window that arrived: its counts by type, and the latency in seconds of each of our reactions in it."""

    event_id: str
    received_ns: int
    total: int
    reactions: tuple[TypeCount, ...]
    latencies_s: NDArray[np.float64]

    @property
    def median_s(self) -> float:
        """The median latency; NaN if the window has no reaction of this session."""
        return rank_quantile(self.latencies_s, 0.5)

    @property
    def slowest_s(self) -> float:
        """The longest latency; NaN if the window has no reaction of this session."""
        return rank_quantile(self.latencies_s, 1.0)

    @property
    def representatives(self) -> int:
        """How many emoji this window puts on screen."""
        return sum(reaction.representatives for reaction in self.reactions)


def quantile_s(windows: Iterable[Seen], q: float) -> float:
    """Return the quantile of all these windows' latencies together; NaN if they are too few."""
    values = [window.latencies_s for window in windows]
    together = np.concatenate(values) if values else np.empty(0)
    return rank_quantile(together, q) if printable(q, len(together)) else float("nan")


class Ledger:
    """The due time of each of our reactions by its offset, kept until a window has claimed it."""

    def __init__(self, prefix: str) -> None:
        """Reactions of users whose id begins with `prefix` are this session's."""
        self._prefix = prefix
        self._due_ns: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._ends: dict[int, int] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Take records of `emoji-events`, in order within each partition; others' and unreadable ones as well."""
        for record in records:
            self._ends[record.partition] = record.offset + 1
            try:
                event = _decode(record.value or b"")
            except msgspec.DecodeError:
                continue
            if event.user_id.startswith(self._prefix):
                due_us = (datetime.fromisoformat(event.timestamp) - _EPOCH) // _MICROSECOND
                self._due_ns[record.partition].append((record.offset, due_us * NS_PER_US))

    def covers(self, offsets: Mapping[int, int]) -> bool:
        """Return whether every record up to these offsets (partition -> last, inclusive) has been taken."""
        return all(self._ends.get(partition, 0) > last for partition, last in offsets.items())

    def claim(self, window: Window, received_ns: int) -> Seen:
        """Return `window` with the latencies of our reactions in it, and forget all up to its offsets."""
        due_ns: list[int] = []
        for partition, (first, last) in spans(window).items():
            kept = self._due_ns[partition]
            due_ns += [due for offset, due in kept if first <= offset <= last]
            self._due_ns[partition] = [entry for entry in kept if entry[0] > last]
        latencies_s = (received_ns - np.asarray(due_ns, dtype=np.int64)) / NS_PER_S
        return Seen(window.event_id, received_ns, window.total, tuple(window.reactions), latencies_s)


def spans(window: Window) -> dict[int, tuple[int, int]]:
    """Return the first and last offset of each partition of which the window has records."""
    named = {int(key.rpartition("-")[2]): span for key, span in window.offsets.items()}
    return {partition: (first, last) for partition, (first, last) in named.items() if last >= first}


async def seen(ledger: Ledger, reader: Reader, window: Window, received_ns: int) -> Seen:
    """Read `emoji-events` as far as `window` goes and return it with its latencies.

    Raises EmoStreamError if Kafka does not deliver these records within READ_S.
    """
    last = {partition: upto for partition, (_, upto) in spans(window).items()}
    deadline_s = time.monotonic() + READ_S
    while not ledger.covers(last):
        if time.monotonic() > deadline_s:
            raise EmoStreamError(
                f"window {window.event_id} names offsets up to {last}, and Kafka did not deliver them within "
                f"{READ_S:g} s: check that its broker is running"
            )
        ledger.add(await asyncio.to_thread(reader.poll, 0.2))
    return ledger.claim(window, received_ns)
