"""Making the window record of one micro-batch from its aggregated rows. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import UNSET

from pipeline import emojis
from pipeline.messages import TypeCount, Window
from spark.policies import NOTHING, represent

NO_OFFSETS: Mapping[int, tuple[int, int]] = MappingProxyType({})
NO_TIMES: Mapping[int, int] = MappingProxyType({})


def countable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row of `spark.aggregation.aggregate`, with a null type if it is no emoji.

    Any program that may write to Kafka can write any text; what reaches a screen is an emoji.
    """
    kind = row["emoji_type"]
    return row if kind is None or emojis.counts(kind) else {**row, "emoji_type": None}


def last_appended(rows: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Return of each partition in `rows` (see `spark.aggregation.aggregate`) when its last record was appended, ms."""
    ends: dict[int, tuple[int, int]] = {}
    for row in rows:
        end = row["last"], row["last_ms"]
        if end > ends.get(row["partition"], (-1, 0)):
            ends[row["partition"]] = end
    return {partition: at_ms for partition, (_, at_ms) in ends.items()}


def first_appended(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return when the first of the records in `rows` (see `spark.aggregation.aggregate`) was appended, ms."""
    return min(int(row["first_ms"]) for row in rows)


def window(
    rows: Iterable[Mapping[str, Any]],
    *,
    topic: str,
    epoch: str,
    number: int,
    trigger_ns: int,
    emitted_ns: int,
    group_size: int,
    policy: str,
    carried: Mapping[str, int] = NOTHING,
    lost: Mapping[int, tuple[int, int]] = NO_OFFSETS,
    repeats: Mapping[tuple[str, int], int] | None = None,
    appended_ms: Mapping[int, int] = NO_TIMES,
) -> Window | None:
    """Return the window of `rows` (see `spark.aggregation.aggregate`), or None if there are no rows.

    `carried` are the remainders after the previous window, see `spark.policies`; `lost` the offsets of each partition
    that Kafka removed before they were counted. `repeats` says how many records of a type and partition are repeats,
    which do not count; None: no record has an id. `appended_ms` is what `last_appended` returns.
    """
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
            counts[row["emoji_type"]] += row["count"] - (repeats or {}).get((row["emoji_type"], row["partition"]), 0)
    # A type of which all are repeats did not occur.
    counts = +counts
    if not offsets:
        return None
    shown = represent(policy, counts, group_size, epoch=epoch, window=number, carried=carried)
    return Window(
        epoch=epoch,
        window=number,
        trigger_ns=trigger_ns,
        emitted_ns=emitted_ns,
        offsets=dict(sorted(offsets.items())),
        total=counts.total(),
        reactions=[
            TypeCount(emoji_type, count, shown.representatives[emoji_type])
            for emoji_type, count in sorted(counts.items(), key=lambda cell: (-cell[1], cell[0]))
        ],
        malformed=malformed,
        repeats=UNSET if repeats is None else sum(repeats.values()),
        lost={f"{topic}-{partition}": ends for partition, ends in sorted(lost.items())} or UNSET,
        carried=shown.carried or UNSET,
        appended_ms=dict(sorted((f"{topic}-{partition}", at_ms) for partition, at_ms in appended_ms.items())) or UNSET,
    )
