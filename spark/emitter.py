"""Writing a window's record: what each micro-batch sends to `emoji-aggregates`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from pyspark.sql import DataFrame

from pipeline import logs
from pipeline.bus.base import Bus
from pipeline.dead_letters import DeadLetters
from pipeline.errors import EmoStreamError
from pipeline.messages import Window, encode
from pipeline.units import NS_PER_MS
from spark.aggregation import aggregate, identified
from spark.metrics import BatchMeters
from spark.policies import NOTHING
from spark.remainders import Remainders
from spark.repeats import Identified, Remembered
from spark.triggers import Batch, Batches, trigger_ns
from spark.unused import unused
from spark.window import NO_OFFSETS, countable, first_appended, last_appended, window

log = logs.get(__name__)


class Emitter:
    """Counts each micro-batch of parsed records and sends its window to Kafka before the batch commits."""

    def __init__(
        self,
        bus: Bus,
        events_topic: str,
        aggregates_topic: str,
        trigger_s: float,
        group_size: int,
        policy: str,
        meters: BatchMeters,
        lost: Mapping[int, tuple[int, int]] = NO_OFFSETS,
        remembered: Remembered | None = None,
        letters: DeadLetters | None = None,
        last_windows: Sequence[Window] = (),
        check_topic: Callable[[], None] = lambda: None,
        batches: Batches | None = None,
    ) -> None:
        """`lost` are the offsets that Kafka removed uncounted: the first window names them.

        `last_windows` are the last ones that the job emitted, from which policy `carry` continues. `remembered` are
        the ids that they counted. `letters` get the records that are no reactions. `check_topic` raises an error if
        what Spark read is not to be counted. `batches` is told of Spark's reports.
        """
        self._bus = bus
        self._letters = letters
        self._lost = lost
        self._remembered = remembered or Remembered()
        self._writer = bus.writer()
        self._events_topic = events_topic
        self._aggregates_topic = aggregates_topic
        self._trigger_s = trigger_s
        self._group_size = group_size
        self._policy = policy
        self._last_windows = last_windows
        self._check_topic = check_topic
        self._remainders = Remainders()
        self._meters = meters
        self._batches = batches or Batches()
        self._epoch: Future[str] = Future()

    def begin(self, epoch: str) -> None:
        """Set the epoch of every window; batches wait for it, because the query has no id before it runs.

        Policy `carry` continues from the epoch's last windows. If Kafka has removed them (`retention_ms`), it starts
        over: less than one group per type is then never shown.
        """
        self._remainders = Remainders.of(self._last_windows, epoch)
        self._epoch.set_result(epoch)

    def __call__(self, records: DataFrame, number: int) -> None:
        """Emit the window of one micro-batch; an error here makes Spark repeat the batch after a restart."""
        self._meters.query.mark()
        started_ns = time.time_ns()
        rows = [countable(row.asDict()) for row in aggregate(records).collect()]
        # `begin` sets the remainders before the epoch.
        epoch = self._epoch.result()
        record = self._window(records, rows, epoch, number, started_ns) if rows else None
        if record is not None:
            self._writer.send(self._aggregates_topic, encode(record), key=record.epoch.encode())
            self._writer.flush()
            self._lost = NO_OFFSETS
            self._remainders.keep(number, record.carried or NOTHING)
            self._meters.emitted(record)
            log.info("window", id=record.event_id, total=record.total, types=len(record.reactions))
            if record.malformed and self._letters is not None:
                self._keep_unused(rows, self._letters)
            self._batches.emitted(Batch(record.trigger_ns, time.time_ns()))

    def _window(
        self, records: DataFrame, rows: Sequence[Mapping[str, Any]], epoch: str, number: int, started_ns: int
    ) -> Window | None:
        """Return the window of a micro-batch's records; `rows` are the counts, which are not empty."""
        appended_ms = last_appended(rows)
        first_ns = first_appended(rows) * NS_PER_MS
        has_ids = any(row["identified"] for row in rows)
        with_id = Identified.of(identified(records).toArrow()) if has_ids else Identified.none()
        repeats = self._remembered.repeats(with_id, epoch, number, appended_ms.values())
        # After the last look at the records, and before the window is made.
        self._check_topic()
        due_ns = trigger_ns(started_ns, first_ns, self._batches.before(number), self._trigger_s)
        return window(
            rows,
            topic=self._events_topic,
            epoch=epoch,
            number=number,
            trigger_ns=due_ns,
            emitted_ns=time.time_ns(),
            group_size=self._group_size,
            policy=self._policy,
            carried=self._remainders.before(number),
            lost=self._lost,
            repeats=repeats if has_ids else None,
            appended_ms=appended_ms,
        )

    def _keep_unused(self, rows: Iterable[Mapping[str, Any]], letters: DeadLetters) -> None:
        try:
            for record, reason in unused(self._bus, self._events_topic, rows):
                letters.put(self._events_topic, record, reason)
        except EmoStreamError as error:
            # The window is out: an error here would have Spark repeat it.
            log.warning("the records that are no reactions could not be read again", reason=str(error))

    def close(self) -> None:
        """Close the connection to Kafka."""
        self._writer.close()
        if self._letters is not None:
            self._letters.close()
