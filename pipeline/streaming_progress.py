"""Spark's progress report of a micro-batch (StreamingQueryProgress as JSON): the fields that are used here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec

from pipeline.messages import Natural, decoder
from pipeline.units import NS_PER_MS

Milliseconds = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A duration, which is negative where a clock was set back."""


class Source(msgspec.Struct, frozen=True, rename="camel"):
    """The offsets after the last record that a micro-batch read: topic → partition → offset."""

    end_offset: dict[str, dict[str, Natural]] | None = None


class StreamingProgress(msgspec.Struct, frozen=True, rename="camel"):
    """The report of one trigger, which may be idle. Durations are in ms; the timestamp is when the trigger started."""

    batch_id: Natural
    timestamp: datetime
    num_input_rows: Natural
    duration_ms: dict[str, Milliseconds]
    sources: list[Source] = []

    @property
    def fired_ns(self) -> int:
        """When the trigger fired, ns since the Unix epoch; Spark says it in whole milliseconds."""
        return round(self.timestamp.timestamp() * 1000) * NS_PER_MS


decode_progress = decoder(StreamingProgress)


def lag(ends: Mapping[int, int], read_to: Mapping[str, int]) -> int:
    """Return the number of records between `read_to` and `ends`, over all partitions of a topic.

    Each partition counts 0 or more: Spark may have read past an end that was looked up a moment earlier.
    """
    return sum(max(0, end - read_to.get(str(partition), 0)) for partition, end in ends.items())
