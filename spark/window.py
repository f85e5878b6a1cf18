"""The aggregated rows of one micro-batch as the window record that travels on."""

from __future__ import annotations

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


def window(
    rows: Iterable[Mapping[str, Any]],
    *,
    topic: str,
    epoch: str,
    number: int,
    trigger_ns: int,
    emitted_ns: int,
) -> Window | None:
    """Return the window that `rows` (see `spark.aggregation.aggregate`) describe, or None where there are none."""
    offsets: dict[str, tuple[int, int]] = {}
    reactions = []
    malformed = 0
    for row in rows:
        for span in row["ranges"]:
            key = f"{topic}-{span['partition']}"
            first, last = offsets.get(key, (span["first"], span["last"]))
            offsets[key] = (min(first, span["first"]), max(last, span["last"]))
        if row["emoji_type"] is None:
            malformed += row["count"]
        else:
            reactions.append(TypeCount(row["emoji_type"], row["count"], row["representatives"]))
    if not offsets:
        return None
    return Window(
        epoch=epoch,
        window=number,
        trigger_ns=trigger_ns,
        emitted_ns=emitted_ns,
        offsets=dict(sorted(offsets.items())),
        total=sum(cell.count for cell in reactions),
        reactions=sorted(reactions, key=lambda cell: (-cell.count, cell.emoji_type)),
        malformed=malformed,
    )
