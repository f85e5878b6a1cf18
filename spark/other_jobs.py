"""Another job on the same Kafka, with a checkpoint of its own: both would count every reaction.

Spark itself notices only a job that shares its checkpoint. So a job that would begin a new epoch waits first: if
windows come meanwhile, another job lives, and this one does not start. One that is started while no reactions come
cannot see the other. It begins its epoch with the next reactions, and the job that was there before ends as soon as it
sees that epoch's first window. Started again, it does not begin another epoch while windows come.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from pipeline import logs
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.records import readable
from pipeline.bus.topics import Topics
from pipeline.errors import EmoStreamError
from pipeline.messages import Window, decode_window
from spark.resume import is_plausible, spans_of, stamps_of

log = logs.get(__name__)

WAIT_MOST_S = 60.0
POLL_S = 0.2
BEGINS_AT = (0, 1)
"""The number of an epoch's first window: Spark's first batch may hold no record, and is no window then."""


class OtherJobs:
    """Reads the windows that are emitted from now on."""

    def __init__(self, bus: KafkaBus, names: Topics) -> None:
        self._bus = bus
        self._names = names
        topic = names.aggregates.name
        self._reader = bus.reader(topic, bus.ends(topic))
        self._epochs: set[str] = set()

    def know(self, windows: Iterable[Window]) -> None:
        """Take the job's last windows, whose epochs had begun before."""
        self._epochs |= {window.epoch for window in windows}

    def check_none(self, trigger_s: float) -> None:
        """Wait for two intervals and a second, a minute at most. Raises EmoStreamError if a window comes."""
        end_s = time.monotonic() + min(2 * trigger_s + 1, WAIT_MOST_S)
        while (left_s := end_s - time.monotonic()) > 0:
            for window in self._windows(min(left_s, POLL_S)):
                raise EmoStreamError(self.error(window))

    def later(self, epoch: str) -> Window | None:
        """Return the first window of an epoch that has begun behind a window of `epoch` since the last call, if any."""
        for window in self._windows(0.0):
            if window.epoch not in self._epochs:
                if epoch in self._epochs and window.window in BEGINS_AT and self._is_of_these_records(window):
                    return window
                self._epochs.add(window.epoch)
        return None

    def error(self, window: Window) -> str:
        """Return what is wrong if another job emits `window`."""
        return (
            f"topic_prefix (EMOSTREAM_TOPIC_PREFIX) is {self._names.prefix!r}, and another spark.job counts the same "
            f"reactions: window {window.event_id} is not this job's. End one of the two, or give one a Kafka or a "
            "topic_prefix of its own; this one can start once no windows of the other come"
        )

    def _windows(self, timeout_s: float) -> Iterator[Window]:
        for _, window in readable(self._reader.poll(timeout_s), decode_window, "window"):
            if is_plausible(window):
                yield window

    def _is_of_these_records(self, window: Window) -> bool:
        """Return whether the times in a window are those of the records that it covers: it was counted from them."""
        last = {number: last for number, (_, last) in spans_of(window).items()}
        if self._bus.stamps(self._names.events.name, last) == stamps_of(window):
            return True
        log.warning("a window of another program begins an epoch", id=window.event_id)
        return False

    def close(self) -> None:
        """Close the connection to Kafka."""
        self._reader.close()
