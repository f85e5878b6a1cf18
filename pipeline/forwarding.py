"""Forwarding windows from one topic to others, each window at most once to each output.

A stage stores no state of its own. The last windows that it wrote to its outputs show what it has forwarded, and the
offset in its own hop shows where in its input to continue. Windows of one epoch are emitted in ascending order (a
replayed micro-batch repeats the last one), so one high-water mark per epoch is enough.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from pipeline import logs
from pipeline.bus.base import Bus, Reader, Record, Writer
from pipeline.bus.records import last_readable, readable
from pipeline.dead_letters import DeadLetters
from pipeline.errors import MessageError
from pipeline.messages import HighWater, Hop, Window, cannot_follow, decode_window, encode
from pipeline.metrics.windows import WindowMeters
from pipeline.turns import Turns

log = logs.get(__name__)

TAIL = 200
"""Windows of an output that show what was forwarded."""
POLL_S = 0.2

View = Callable[[Window], Window]
Decode = Callable[[bytes | None], Window]


class Forwarder:
    """Reads windows from one topic and writes each to every output topic, changed by that topic's view.

    `outputs` maps an output topic to its view, a function from window to window. `stage` names this stage in `hops`.
    Windows before the offset `start` of the input are not forwarded. `meters` is shared by a stage's forwarders if it
    has several. `letters`, which the caller closes, get the records that are not windows or cannot follow. `decode`
    raises MessageError for a record of the input that is not to be forwarded.
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
        letters: DeadLetters | None = None,
        decode: Decode = decode_window,
    ) -> None:
        self.stage = stage
        self._decode = decode
        self._letters = letters
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
        self.turns = Turns()
        """Whether windows are read and written: a write that Kafka does not take ends after ten seconds."""

    def resume(self) -> dict[int, int]:
        """Find out from the outputs' last windows what was forwarded; return the input offsets to continue from.

        The output that is furthest behind decides; for the others, their high-water marks drop duplicates.
        """
        end = self._source.ends(self._source_topic)[0]
        positions = []
        for topic, mark in self._marks.items():
            forwarded = self._forwarded(topic, TAIL)
            position = max(hop.offset + 1 for hop in self._hops(forwarded[-1])) if forwarded else 0
            if position > end:
                log.warning(
                    "the input ends before what was forwarded from it: reading it from its start",
                    topic=self._source_topic,
                    end=end,
                    forwarded=position,
                )
                # The input was made again, and has new windows; or another program wrote into the output, and the
                # input has old ones.
                forwarded, position = self._forwarded(topic, sys.maxsize), 0
            for window in forwarded:
                if mark.follows(window):
                    mark.raise_to(window)
            positions.append(position)
        return {0: max(self._start, min(positions))}

    def _forwarded(self, topic: str, count: int) -> list[Window]:
        """Return the last `count` windows that this stage wrote to an output, without their reactions."""

        def own(value: bytes | None) -> Window:
            window = decode_window(value)
            if not self._hops(window):
                raise MessageError(f"not a window of {self.stage}: no hop names it")
            return msgspec.structs.replace(window, reactions=[])

        return [window for _, window in last_readable(self._sink, topic, count, own)]

    def _hops(self, window: Window) -> list[Hop]:
        return [hop for hop in window.hops if hop.stage == self.stage]

    def health(self) -> dict[str, object]:
        """Return the answer of `GET /healthz`."""
        status = "starting" if self._reader is None else "ok"
        return {"status": status, "stage": self.stage, "stalled_s": round(self.turns.stalled_s(), 3)}

    def run(self, stop: threading.Event) -> None:
        """Forward until `stop` is set."""
        self._reader = self._source.reader(self._source_topic, self.resume())
        self._writer = self._sink.writer()
        log.info("forwarding", source=self._source_topic, outputs=list(self._outputs))
        try:
            while not stop.is_set():
                self.turns.mark()
                self.step(self._reader.poll(POLL_S))
        finally:
            self.turns.rest()
            self._writer.close()
            self._reader.close()

    def step(self, records: Sequence[Record]) -> int:
        """Forward the new windows in `records`; return how many were written, over all outputs."""
        if self._writer is None:
            self._writer = self._sink.writer()
        written = 0
        unreadable = partial(self._unused, "malformed")
        windows = readable(records, self._decode, "window", unreadable, topic=self._source_topic)
        for record, window in windows:
            self.turns.mark()
            received_ns = self._clock_ns()
            forwarded: dict[str, int] = {}
            why = "duplicate"
            for topic, view in self._outputs.items():
                mark = self._marks[topic]
                if not mark.is_new(window):
                    log.info("dropped a window already forwarded", id=window.event_id, topic=topic)
                    why = "duplicate"
                    continue
                if not mark.follows(window):
                    log.error("skipped a window that cannot follow", id=window.event_id, offset=record.offset)
                    why = "implausible"
                    continue
                hop = Hop(self.stage, record.offset, received_ns, self._clock_ns())
                seen = msgspec.structs.replace(view(window), hops=(*window.hops, hop))
                self._writer.send(topic, encode(seen), key=window.epoch.encode())
                forwarded[topic] = hop.sent_ns
            if not forwarded:
                if why == "implausible":
                    self._unused(why, record, cannot_follow(window))
                else:
                    self.meters.dropped(why)
                continue
            self._writer.flush()
            self.meters.passed(window, max(forwarded.values()))
            # Only after the flush: a window that Kafka has not acknowledged must not count as forwarded.
            for topic in forwarded:
                self._marks[topic].raise_to(window)
            written += len(forwarded)
        return written

    def _unused(self, why: str, record: Record, reason: str) -> None:
        self.meters.dropped(why)
        if self._letters is not None:
            self._letters.put(self._source_topic, record, reason)
