"""Spark's own report of a micro-batch, as far as it is read here: its StreamingQueryProgress as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from pipeline.messages import decoder


class Source(msgspec.Struct, frozen=True, rename="camel"):
    """Where a micro-batch ended in its source: topic → partition → the offset after the last record."""

    end_offset: dict[str, dict[str, int]] | None = None


class StreamingProgress(msgspec.Struct, frozen=True, rename="camel"):
    """One trigger's report, idle triggers included; durations are in ms, the timestamp is the trigger's."""

    batch_id: int
    timestamp: datetime
    num_input_rows: int
    duration_ms: dict[str, int]
    sources: list[Source]


decode_report = decoder(StreamingProgress)


def lag(ends: Mapping[int, int], read_to: Mapping[str, int]) -> int:
    """Return how many records there are behind `read_to`, of a topic whose partitions end at `ends`.

    Both move: what Spark reported a moment later than the ends were looked up is no negative lag.
    """
    return sum(max(0, end - read_to.get(str(partition), 0)) for partition, end in ends.items())
