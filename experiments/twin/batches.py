"""The twin's micro-batches: on the trigger grid, each cuts a window from what is in the topic, as Spark's job does."""

from __future__ import annotations

import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Producer

from experiments.twin.clockwork import Clockwork
from experiments.twin.ingest import Ingest, Topic, drawn_ns
from experiments.twin.settings import Twin
from experiments.twin.truth import Reaction, Truth
from experiments.units import NS_PER_MS, NS_PER_S
from pipeline.messages import TypeCount, Window, encode
from spark.policies import NOTHING
from spark.window import window

# Spark asks for the newest offsets a few milliseconds after its trigger.
LOOK_NS = 2 * NS_PER_MS
# Phantoms are written this long before the trigger that counts them.
PHANTOM_LEAD_NS = 150 * NS_PER_MS

Publish = Callable[[Window, int], None]
"""`publish(window, emitted_ns)` sends a window on its way to the clients."""


class Batches:
    """Emits a window per trigger at which the topic has new records."""

    def __init__(
        self,
        twin: Twin,
        clockwork: Clockwork,
        topic: Topic,
        ingest: Ingest,
        producer: Producer,
        aggregates: str,
        progress: str,
        publish: Publish,
        truth: Truth,
    ) -> None:
        self.epoch = str(uuid.uuid4())
        self._twin = twin
        self._clockwork = clockwork
        self._topic = topic
        self._ingest = ingest
        self._producer = producer
        self._aggregates, self._progress = aggregates, progress
        self._publish = publish
        self._truth = truth
        self._rng = random.Random(f"{twin.seed} batches")
        self._read = [0] * twin.partitions
        self._number = 0
        self._previous_end_ns = 0
        self._carried: Mapping[str, int] = NOTHING
        self._interval_ns = round(twin.trigger_s * NS_PER_S)

    def start(self) -> None:
        """Begin to trigger."""
        self._plan_next(time.time_ns())

    def _plan_next(self, now_ns: int, started_ns: int = 0) -> None:
        """Plan the next micro-batch: at the multiple after the start of the last one, at once if that has passed."""
        due_ns = ((started_ns or now_ns) // self._interval_ns + 1) * self._interval_ns
        moment_ns = max(due_ns + LOOK_NS, now_ns)
        if count := self._twin.phantoms.get(self._number):
            self._clockwork.at(moment_ns - PHANTOM_LEAD_NS, self._phantoms(self._number, count))
        self._clockwork.at(moment_ns, self._trigger)

    def _phantoms(self, number: int, count: int) -> Callable[[], None]:
        def write() -> None:
            # The window gets its number only if it reads something.
            if number == self._number and self._unread():
                self._ingest.phantoms(count)

        return write

    def _unread(self) -> bool:
        return any(len(rows) > read for rows, read in zip(self._topic.acknowledged, self._read, strict=True))

    def _trigger(self) -> None:
        started_ns = time.time_ns()
        cut: list[Reaction] = []
        left_out = self._twin.skipped.get(self._number, 0)
        for partition, rows in enumerate(self._topic.acknowledged):
            end = len(rows)
            cut += rows[self._read[partition] + (0 if partition else left_out) : end]
            self._read[partition] = end
        if not cut:
            self._plan_next(started_ns)
            return
        number, self._number = self._number, self._number + 1
        # As Spark's triggers: at a multiple, or after an overrun at once.
        due_ns = max(started_ns // self._interval_ns * self._interval_ns, self._previous_end_ns)
        spent_ns = drawn_ns(self._rng, self._twin.micro_batch_ms) + round(self._twin.service_us * 1000 * len(cut))
        spent_ns += round(self._twin.late_windows_ms.get(number, 0.0) * NS_PER_MS)
        for reaction in cut:
            reaction.window = None if number in self._twin.unemitted else number
        # From the trigger, unless the batch before was still running then.
        self._clockwork.at(due_ns + spent_ns, lambda: self._emit(number, started_ns, due_ns, cut))

    def _emit(self, number: int, started_ns: int, due_ns: int, cut: list[Reaction]) -> None:
        twin = self._twin
        named_ns = due_ns + round(twin.trigger_lies_ms.get(number, 0.0) * NS_PER_MS)
        made = window(
            aggregated(cut),
            topic=self._topic.name,
            epoch=self.epoch,
            number=number,
            trigger_ns=named_ns,
            emitted_ns=time.time_ns(),
            group_size=twin.group_size,
            policy=twin.policy,
            carried=self._carried,
        )
        assert made is not None
        self._carried = made.carried or NOTHING
        made = changed(
            made,
            added=twin.added.get(number, 0),
            moved=twin.moved.get(number, 0),
            shown=twin.shown.get(number, 0),
        )
        emitted_ns = time.time_ns()
        made = msgspec.structs.replace(made, emitted_ns=emitted_ns)
        if number not in twin.unemitted:
            self._producer.produce(self._aggregates, encode(made), self.epoch.encode())
            if number in twin.repeated:
                again = changed(made, added=twin.repeated[number])
                self._producer.produce(self._aggregates, encode(again), self.epoch.encode())
        phantoms = sum(reaction.fate == "phantom" for reaction in cut)
        self._truth.windows.append((number, due_ns, named_ns, emitted_ns, len(cut), phantoms))
        if number not in twin.undelivered:
            self._publish(msgspec.structs.replace(made, carried=msgspec.UNSET), emitted_ns)
        commit_ns = drawn_ns(self._rng, twin.commit_ms)
        self._clockwork.at(emitted_ns + commit_ns, lambda: self._commit(number, started_ns, due_ns, emitted_ns, cut))

    def _commit(self, number: int, started_ns: int, due_ns: int, emitted_ns: int, cut: list[Reaction]) -> None:
        now_ns = time.time_ns()
        self._previous_end_ns = now_ns
        if self._rng.random() >= self._twin.lose_progress:
            # After an overrun it began at once, and not before its trigger.
            began_ns = max(started_ns - LOOK_NS, due_ns)
            began = datetime.fromtimestamp(began_ns / NS_PER_S, UTC)
            spans = {
                "addBatch": emitted_ns - started_ns,
                "commitOffsets": now_ns - emitted_ns,
                "latestOffset": started_ns - began_ns,
                "queryPlanning": 0,
                "triggerExecution": now_ns - began_ns,
                "walCommit": 0,
            }
            report = {
                "id": self.epoch,
                "timestamp": began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "batchId": number,
                "numInputRows": len(cut),
                "durationMs": {name: round(span / NS_PER_MS) for name, span in spans.items()},
            }
            self._producer.produce(self._progress, encode(report))
        self._plan_next(now_ns, started_ns)


def aggregated(cut: list[Reaction]) -> list[dict[str, Any]]:
    """Return the rows that Spark's job would make of these records."""
    offsets: dict[tuple[str, int], list[int]] = defaultdict(list)
    for reaction in cut:
        assert reaction.partition is not None
        assert reaction.offset is not None
        offsets[reaction.emoji_type, reaction.partition].append(reaction.offset)
    return [
        {"emoji_type": emoji, "partition": partition, "count": len(of), "first": min(of), "last": max(of)}
        for (emoji, partition), of in offsets.items()
    ]


def changed(made: Window, *, added: int = 0, moved: int = 0, shown: int = 0) -> Window:
    """Return the window with `added` more of its first type, with up to `moved` of that moved to its last type, and
    with `shown` more representatives of its first type.
    """
    if not (added or moved or shown) or not made.reactions:
        return made
    counts = [each.count for each in made.reactions]
    moved = min(moved, counts[0]) if len(counts) > 1 else 0
    counts[0] += added - moved
    counts[-1] += moved
    cells = [
        TypeCount(each.emoji_type, count, each.representatives + (0 if place else shown))
        for place, (each, count) in enumerate(zip(made.reactions, counts, strict=True))
    ]
    return msgspec.structs.replace(made, reactions=cells, total=made.total + added)
