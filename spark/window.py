"""The aggregated rows of one micro-batch as the window record that travels on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.messages import TypeCount, Window

NS = 1_000_000_000


def trigger_ns(started_ns: int, previous_end_ns: int, trigger_s: float) -> int:
    """Return when the micro-batch that started at `started_ns` was due.

    Spark's processing-time triggers sit on multiples of the interval since the epoch; after an overrun the next
    batch starts at once. So the trigger is the last multiple, unless the batch before was still running then.
    Source: Spark's ProcessingTimeExecutor.
    """
    interval_ns = round(trigger_s * NS)
    grid_ns = started_ns // interval_ns * interval_ns
    return max(grid_ns, min(previous_end_ns, started_ns))


def representatives(count: int, group_size: int) -> int:
    """How many stand on screen for `count` reactions of a type: ceil(count / group_size).

    Up to `group_size` become one, so nothing that happened vanishes, and the error is below `group_size` a type.
    """
    return -(-count // group_size)


def window(
    rows: Iterable[Mapping[str, Any]],
    *,
    topic: str,
    epoch: str,
    number: int,
    trigger_ns: int,
    emitted_ns: int,
    group_size: int,
) -> Window | None:
    """Return the window that `rows` (see `spark.aggregation.aggregate`) describe, or None where there are none."""
    offsets: dict[str, tuple[int, int]] = {}
    counts: Counter[str] = Counter()
    malformed = 0
    for row in rows:
        key = f"{topic}-{row['partition']}"
        first, last = offsets.get(key, (row["first"], row["last"]))
        offsets[key] = (min(first, row["first"]), max(last, row["last"]))
        if row["emoji_type"] is None:
            malformed += row["count"]
        else:
            counts[row["emoji_type"]] += row["count"]
    if not offsets:
        return None
    return Window(
        epoch=epoch,
        window=number,
        trigger_ns=trigger_ns,
        emitted_ns=emitted_ns,
        offsets=dict(sorted(offsets.items())),
        total=counts.total(),
        reactions=[
            TypeCount(emoji_type, count, representatives(count, group_size))
            for emoji_type, count in sorted(counts.items(), key=lambda cell: (-cell[1], cell[0]))
        ],
        malformed=malformed,
    )
