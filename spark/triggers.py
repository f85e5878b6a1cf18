"""When micro-batches were due. No I/O.

Spark's processing-time triggers are at multiples of the interval since the Unix epoch; after an overrun the next batch
starts at once. Source: Spark's ProcessingTimeExecutor, which waits for the multiple after the moment at which the last
trigger fired.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.streaming_progress import StreamingProgress
from pipeline.units import NS_PER_MS, NS_PER_S


class Batch(NamedTuple):
    """When a micro-batch's trigger fired, and when the batch ended, ns since the Unix epoch."""

    trigger_ns: int
    end_ns: int


def trigger_ns(started_ns: int, first_ns: int, previous: Batch | None, trigger_s: float) -> int:
    """Return when the micro-batch that started at `started_ns` was due.

    That is the multiple after the trigger of the previous batch, or that batch's end if it was still running; and if
    Kafka appended the batch's first record after that, at `first_ns`, the first multiple since. It is not always the
    last multiple: near its capacity Spark needs longer than an interval to ask for the topic's end. Where nothing is
    known of a previous batch, there may be a backlog, and it is the last multiple.
    """
    interval_ns = round(trigger_s * NS_PER_S)
    last_ns = started_ns // interval_ns * interval_ns
    if previous is None:
        return last_ns
    due_ns = max((previous.trigger_ns // interval_ns + 1) * interval_ns, previous.end_ns)
    if first_ns > due_ns:
        # Spark may have read what was appended just after the trigger, so that no multiple lies between.
        due_ns = max(due_ns, min(-(-first_ns // interval_ns) * interval_ns, last_ns))
    return min(due_ns, started_ns)


class Batches:
    """Knows the last micro-batch: from Spark's report, and until that has come by what its emitter saw.

    An emitter knows only when a trigger was due and when the window was out. It may have fired later, and the batch
    ends with its commit: the next multiple may lie between.
    """

    def __init__(self) -> None:
        self._reported: tuple[int, Batch] | None = None
        self._emitted: Batch | None = None

    def report(self, progress: StreamingProgress) -> None:
        """Take Spark's report of a trigger, in the listener's thread; that of an idle one says nothing of a batch."""
        took_ms = progress.duration_ms
        if "addBatch" in took_ms:
            ended_ns = progress.fired_ns + took_ms.get("triggerExecution", 0) * NS_PER_MS
            self._reported = progress.batch_id, Batch(progress.fired_ns, ended_ns)

    def emitted(self, batch: Batch) -> None:
        """Note what the emitter saw of the batch that it just ended."""
        self._emitted = batch

    def before(self, number: int) -> Batch | None:
        """Return the batch before `number`, None for a job's first one."""
        if self._reported is not None and self._reported[0] == number - 1:
            return self._reported[1]
        return self._emitted
