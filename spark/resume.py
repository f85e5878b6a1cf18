"""Whether a checkpoint fits the windows and the topic, and where to begin if it does not. No I/O.

Spark believes its checkpoint. One that was deleted would count a day again; an older copy gives the numbers of known
windows to other reactions, which every stage then drops as duplicates; a torn one, a topic that was made again, or
records that retention removed end the query at each start. So a checkpoint is compared with the last window that was
emitted. If the two contradict each other, a new epoch begins behind that window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.messages import Window

Offsets = Mapping[int, int]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says: its `epoch` (None: there is none), and of its batches the offsets behind the last record.

    `behind` has the newest batch and that of the last window, if they are there. `after` is
    the id of the window behind which the epoch began, "" for the first. `torn` says which file cannot be read.
    """

    epoch: str | None = None
    behind: Mapping[int, Offsets] = field(default_factory=dict)
    after: str = ""
    torn: str = ""


@dataclass(frozen=True)
class Start:
    """How the query starts: with its checkpoint if `reason` is empty, else in a new epoch, without the old checkpoint.

    `offsets`: where each partition begins without a checkpoint. `lost`: the offsets, both inclusive, that no window
    covers and Kafka no longer has.
    """

    reason: str
    offsets: Offsets
    lost: Mapping[int, tuple[int, int]]
    after: str = ""


def number_of(partition: str) -> int:
    """Return the number of a partition as a window names it, such as "emoji-events-0"."""
    return int(partition.rpartition("-")[2])


def behind(windows: Iterable[Window]) -> dict[int, int]:
    """Return of each partition the offset behind the last record that any of `windows` covers."""
    found: dict[int, int] = {}
    for window in windows:
        for name, (_, last) in window.offsets.items():
            number = number_of(name)
            found[number] = max(found.get(number, 0), last + 1)
    return found


def contradiction(checkpoint: Checkpoint, last: Window | None) -> str:
    """Return why `checkpoint` does not belong to the `last` window that was emitted; empty if it may."""
    if checkpoint.torn:
        return f"the checkpoint's {checkpoint.torn} cannot be read"
    if checkpoint.epoch is None or last is None:
        return ""
    if last.epoch != checkpoint.epoch:
        return "" if checkpoint.after == last.event_id else f"the last window, {last.event_id}, is of another epoch"
    newest = max(checkpoint.behind, default=-1)
    if newest < last.window:
        return f"the checkpoint ends with batch {newest}, before the last window, {last.event_id}"
    covered = checkpoint.behind.get(last.window)
    if covered is None:
        return f"the checkpoint does not know the last window, {last.event_id}"
    for name, (_, end) in last.offsets.items():
        if end >= covered.get(number_of(name), 0):
            return f"the checkpoint's batch {last.window} has other offsets than the last window, {last.event_id}"
    return ""


def start(checkpoint: Checkpoint, windows: Iterable[Window], firsts: Offsets, ends: Offsets) -> Start:
    """Return how to start, given the `windows` emitted so far, and of each partition of the topic its first offset and
    the one behind its last record.
    """
    known = list(windows)
    last = known[-1] if known else None
    counted = _counted(checkpoint, known)
    reason = contradiction(checkpoint, last)
    newest = checkpoint.behind[max(checkpoint.behind)] if checkpoint.behind else {}
    beyond = [number for number in sorted(ends) if max(counted.get(number, 0), newest.get(number, 0)) > ends[number]]
    if beyond:
        reason, counted = f"partition {beyond[0]} ends before records that were counted: the topic was made again", {}
    # Of a partition that no window names it is not known what was counted.
    lost = {number: (due, firsts[number] - 1) for number, due in counted.items() if due < firsts.get(number, 0)}
    if not reason and checkpoint.behind:
        if not lost:
            return Start("", {}, {})
        reason = "Kafka has removed records that were not counted yet"
    if not reason and checkpoint.epoch is None and known:
        reason = "there is no checkpoint"
    offsets = {number: max(counted.get(number, 0), first) for number, first in firsts.items()}
    return Start(reason, offsets, lost, "" if last is None or beyond else last.event_id)


def _counted(checkpoint: Checkpoint, known: list[Window]) -> dict[int, int]:
    """Return of each partition the offset behind the last record that is known to be counted."""
    counted = behind(known)
    # A window names only the partitions that had records. Its batch in the checkpoint has all, and so has the newest
    # batch if it is older: windows behind it were emitted.
    newest = max(checkpoint.behind, default=-1)
    own = known and known[-1].epoch == checkpoint.epoch
    batch = min(newest, known[-1].window) if own else newest
    for number, offset in checkpoint.behind.get(batch, {}).items():
        counted[number] = max(counted.get(number, 0), offset)
    return counted
