"""Writing to one topic from many request threads, which share one acknowledgement."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

from pipeline import logs
from pipeline.bus.base import Writer
from pipeline.errors import BufferFullError, KafkaUnreachableError

log = logs.get(__name__)

QUEUE_MAX = 10_000
BATCH_MAX = 500
ACK_S = 5.0
# Records are gathered for this time: one written alone costs a request here and a fetch at every reader. A
# registration takes this much longer.
GATHER_S = 0.05

Entry = tuple[bytes, bytes | None, "Future[None]"]


class BatchWriter:
    """Appends keyed records to `topic` in the order of the calls.

    One flush serves all callers that wait at that moment, so that a burst of registrations needs a few
    acknowledgements and not one each.
    """

    def __init__(self, writer: Writer, topic: str) -> None:
        self._writer = writer
        self._topic = topic
        self._entries: queue.Queue[Entry | None] = queue.Queue(QUEUE_MAX)
        self._thread = threading.Thread(target=self._run, name=f"write-{topic}", daemon=True)
        self._thread.start()

    def post(self, key: bytes, value: bytes | None) -> Future[None]:
        """Queue one record; the future is done when Kafka has it, or raises KafkaUnreachableError.

        Raises BufferFullError when QUEUE_MAX records wait already.
        """
        acknowledged: Future[None] = Future()
        try:
            self._entries.put_nowait((key, value, acknowledged))
        except queue.Full:
            raise BufferFullError(
                f"{QUEUE_MAX} records wait for topic {self._topic!r}: check Kafka, then try again"
            ) from None
        return acknowledged

    def __len__(self) -> int:
        """Return the number of records that wait to be written."""
        return self._entries.qsize()

    def wait(self, acknowledged: Future[None]) -> None:
        """Wait until Kafka has a posted record. Raises KafkaUnreachableError; the record is then not written later."""
        # A second time for one that is being written, which has an end of its own.
        for _ in range(2):
            try:
                acknowledged.result(2 * ACK_S)
                return
            except TimeoutError:
                if acknowledged.cancel():
                    break
        raise KafkaUnreachableError(
            f"Kafka acknowledged no record of {self._topic!r} for {2 * ACK_S:g} s: check the broker, then try again"
        )

    def close(self, timeout_s: float = 2.0) -> None:
        """Write the queued records and close the writer."""
        with suppress(queue.Full):
            self._entries.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        ending = False
        while not ending:
            batch: list[Entry] = []
            entry = self._entries.get()
            time.sleep(GATHER_S)
            while entry is not None and len(batch) < BATCH_MAX:
                batch.append(entry)
                try:
                    entry = self._entries.get_nowait()
                except queue.Empty:
                    break
            else:
                ending = entry is None
                if entry is not None:
                    batch.append(entry)
            if batch:
                self._write(batch)
        self._writer.close()

    def _write(self, batch: list[Entry]) -> None:
        # Whoever waited too long has told its caller that nothing was written.
        batch = [entry for entry in batch if entry[2].set_running_or_notify_cancel()]
        try:
            for key, value, _ in batch:
                self._writer.send(self._topic, value, key)
            self._writer.flush(ACK_S)
        except Exception as error:
            # Every caller gets the error; the thread continues with the next records.
            log.error("records were not acknowledged", topic=self._topic, records=len(batch), error=str(error))
            for _, _, acknowledged in batch:
                acknowledged.set_exception(error)
        else:
            for _, _, acknowledged in batch:
                acknowledged.set_result(None)
