"""Passing windows on, each at most once to each output.

A stage remembers nothing of its own: the last windows in its outputs say what it has forwarded, and the offset
that its own hop carries says where in its input to go on. Windows of one epoch are emitted in ascending order (a
replayed micro-batch repeats the last one), so a high-water mark an epoch is all the memory that is needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pipeline import logs
from pipeline.bus.base import Bus, Reader, Record, Writer
from pipeline.errors import MessageError
from pipeline.messages import HighWater, Hop, Window, decode_window, encode
from pipeline.metrics.windows import WindowMeters

log = logs.get(__name__)

TAIL = 200
POLL_S = 0.2

View = Callable[[Window], Window]


class Forwarder:
    """Reads windows from one topic and writes each, seen through a view, to every output topic.

    `outputs` maps an output topic to the view its readers have of a window. `stage` names this stage in `hops`.
    Nothing before the offset `start` of the input is forwarded. `meters` are those of the stage, where it has several.
    """

    def __init__(
        self,
        stage: str,
        source: Bus,
        source_topic: str,
        sink: Bus,
        outputs: Mapping[str, View],
        clock_ns: Callable[[], int] = time.time_ns,
        start: int = 0,
        meters: WindowMeters | None = None,
    ) -> None:
        self.stage = stage
        self._start = start
        self.meters = meters or WindowMeters(stage)
        self._source = source
        self._source_topic = source_topic
        self._sink = sink
        self._outputs = dict(outputs)
        self._clock_ns = clock_ns
        self._marks = {topic: HighWater() for topic in outputs}
        self._reader: Reader | None = None
        self._writer: Writer | None = None

    def resume(self) -> dict[int, int]:
        """Learn from the outputs' tails what was forwarded; return where to go on in the input.

        The furthest-behind output decides: the others drop by their marks what they already have.
        """
        positions = []
        for topic, mark in self._marks.items():
            position = 0
            for record in self._sink.tail(topic, TAIL):
                window = _window_of(record, topic)
                if window is None:
                    continue
                mark.raise_to(window)
                position = max([position, *(hop.offset + 1 for hop in window.hops if hop.stage == self.stage)])
            positions.append(position)
        return {0: max(self._start, min(positions))}

    def health(self) -> dict[str, object]:
        """What `GET /healthz` answers."""
        return {"status": "starting" if self._reader is None else "ok", "stage": self.stage}

    def run(self, stop: threading.Event) -> None:
        """Forward until `stop` is set."""
        self._reader = self._source.reader(self._source_topic, self.resume())
        self._writer = self._sink.writer()
        log.info("forwarding", source=self._source_topic, outputs=list(self._outputs))
        try:
            while not stop.is_set():
                self.step(self._reader.poll(POLL_S))
        finally:
            self._writer.close()
            self._reader.close()

    def step(self, records: Sequence[Record]) -> int:
        """Forward what is new in `records`; return how many windows were written."""
        if self._writer is None:
            self._writer = self._sink.writer()
        written = 0
        for record in records:
            received_ns = self._clock_ns()
            window = _window_of(record, self._source_topic)
            if window is None:
                self.meters.dropped("malformed")
                continue
            forwarded: dict[str, int] = {}
            for topic, view in self._outputs.items():
                if not self._marks[topic].is_new(window):
                    log.info("dropped a window already forwarded", id=window.event_id, topic=topic)
                    continue
                hop = Hop(self.stage, record.offset, received_ns, self._clock_ns())
                seen = msgspec.structs.replace(view(window), hops=(*window.hops, hop))
                self._writer.send(topic, encode(seen), key=window.epoch.encode())
                forwarded[topic] = hop.sent_ns
            if not forwarded:
                self.meters.dropped("duplicate")
                continue
            self._writer.flush()
            self.meters.passed(window, max(forwarded.values()))
            # Marks rise only now: a window that Kafka did not take must not count as forwarded.
            for topic in forwarded:
                self._marks[topic].raise_to(window)
            written += len(forwarded)
        return written


def _window_of(record: Record, topic: str) -> Window | None:
    try:
        return decode_window(record.value)
    except MessageError as error:
        log.error("skipped a record that is no window", topic=topic, offset=record.offset, reason=str(error))
        return None
