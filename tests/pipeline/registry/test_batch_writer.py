"""BatchWriter: order, shared acknowledgements, a bound, and no queued record lost at the end."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import BufferFullError, KafkaUnreachableError
from pipeline.registry import batch_writer
from pipeline.registry.batch_writer import BatchWriter


class SlowWriter:
    """A writer whose acknowledgements wait until `gate` opens; with `error` it fails instead."""

    def __init__(self, error: Exception | None = None) -> None:
        self.gate = threading.Event()
        self.flushing = threading.Event()
        self.error = error
        self.sent: list[bytes | None] = []
        self.flushes = 0
        self.closed = False

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Keep the key."""
        self.sent.append(key)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait for the gate."""
        self.flushes += 1
        self.flushing.set()
        self.gate.wait(20)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Record the call."""
        self.closed = True


def test_records_that_wait_together_share_a_flush() -> None:
    """All records posted during one flush share the next one, in order; no future is done before its flush."""
    writer = SlowWriter()
    batches = BatchWriter(writer, "t")
    first = batches.post(b"0", b"x")
    assert writer.flushing.wait(20)
    others = [batches.post(b"%d" % n, b"x") for n in range(1, 20)]
    assert not first.done()
    writer.gate.set()
    for acknowledged in (first, *others):
        acknowledged.result(20)
    batches.close()
    assert writer.sent == [b"%d" % n for n in range(20)]
    assert writer.flushes == 2
    assert writer.closed


@pytest.mark.parametrize("error", [KafkaUnreachableError("gone"), RuntimeError("a bug")])
def test_failed_flush_raises_for_every_waiting_caller(error: Exception) -> None:
    """The caller that posted the record gets the error, and the writer goes on."""
    writer = SlowWriter(error)
    writer.gate.set()
    batches = BatchWriter(writer, "t")
    with pytest.raises(type(error)):
        batches.wait(batches.post(b"k", b"v"))
    writer.error = None
    batches.wait(batches.post(b"k", b"v"))
    batches.close()


def test_record_that_was_given_up_is_not_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller has answered 503: a registration that nobody knows the token of would be left."""
    monkeypatch.setattr(batch_writer, "ACK_S", 0.05)
    writer = SlowWriter()
    batches = BatchWriter(writer, "t")
    first = batches.post(b"0", b"x")
    assert writer.flushing.wait(20)
    with pytest.raises(KafkaUnreachableError, match=r"acknowledged no record of 't' for 0\.1 s"):
        batches.wait(batches.post(b"1", b"x"))
    kept = batches.post(b"2", b"x")
    writer.gate.set()
    first.result(20)
    kept.result(20)
    batches.close()
    assert writer.sent == [b"0", b"2"]


def test_full_queue_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the bound, and the queued records are still batches."""
    monkeypatch.setattr(batch_writer, "QUEUE_MAX", 2)
    writer = SlowWriter()
    batches = BatchWriter(writer, "t")
    posted = [batches.post(b"0", None)]
    assert writer.flushing.wait(20)
    posted += [batches.post(b"1", None), batches.post(b"2", None)]
    with pytest.raises(BufferFullError, match="2 records wait"):
        batches.post(b"3", None)
    writer.gate.set()
    batches.close()
    for acknowledged in posted:
        acknowledged.result(0)
    assert writer.sent == [b"0", b"1", b"2"]


def test_long_queue_is_written_in_several_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has a bound, and `close` waits for the whole queue."""
    monkeypatch.setattr(batch_writer, "BATCH_MAX", 3)
    writer = SlowWriter()
    batches = BatchWriter(writer, "t")
    for n in range(10):
        batches.post(b"%d" % n, None)
    writer.gate.set()
    batches.close(20)
    assert writer.sent == [b"%d" % n for n in range(10)]
    assert writer.flushes >= 3
