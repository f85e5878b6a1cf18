"""The journal: order, shared acknowledgements, a bound, and nothing queued lost at the end."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import BufferFullError, KafkaUnreachableError
from pipeline.registry import batch_writer
from pipeline.registry.batch_writer import BatchWriter


class SlowWriter:
    """A writer whose acknowledgements wait until `gate` opens; broken when told so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.gate = threading.Event()
        self.flushing = threading.Event()
        self.error = error
        self.sent: list[bytes | None] = []
        self.flushes = 0
        self.closed = False

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Keep it."""
        self.sent.append(key)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait for the gate."""
        self.flushes += 1
        self.flushing.set()
        self.gate.wait(20)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def test_who_waits_together_is_acknowledged_together() -> None:
    """Everything that came during one flush shares the next, in order; nobody is answered before his."""
    writer = SlowWriter()
    written = BatchWriter(writer, "t")
    first = written.post(b"0", b"x")
    assert writer.flushing.wait(20)
    others = [written.post(b"%d" % n, b"x") for n in range(1, 20)]
    assert not first.done()
    writer.gate.set()
    for acknowledged in (first, *others):
        acknowledged.result(20)
    written.close()
    assert writer.sent == [b"%d" % n for n in range(20)]
    assert writer.flushes == 2
    assert writer.closed


@pytest.mark.parametrize("error", [KafkaUnreachableError("gone"), RuntimeError("a bug")])
def test_what_was_not_acknowledged_is_an_error_to_who_waits(error: Exception) -> None:
    """Whatever went wrong is raised where the record came from, and the journal goes on."""
    writer = SlowWriter(error)
    writer.gate.set()
    written = BatchWriter(writer, "t")
    with pytest.raises(type(error)):
        written.wait(written.post(b"k", b"v"))
    writer.error = None
    written.wait(written.post(b"k", b"v"))
    written.close()


def test_a_full_journal_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bound is named, and what was taken before is written all the same."""
    monkeypatch.setattr(batch_writer, "QUEUE_MAX", 2)
    writer = SlowWriter()
    written = BatchWriter(writer, "t")
    taken = [written.post(b"0", None)]
    assert writer.flushing.wait(20)
    taken += [written.post(b"1", None), written.post(b"2", None)]
    with pytest.raises(BufferFullError, match="2 records wait"):
        written.post(b"3", None)
    writer.gate.set()
    written.close()
    for acknowledged in taken:
        acknowledged.result(0)
    assert writer.sent == [b"0", b"1", b"2"]


def test_batches_have_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long queue is written in several flushes, and close waits for all of it."""
    monkeypatch.setattr(batch_writer, "BATCH_MAX", 3)
    writer = SlowWriter()
    written = BatchWriter(writer, "t")
    for n in range(10):
        written.post(b"%d" % n, None)
    writer.gate.set()
    written.close(20)
    assert writer.sent == [b"%d" % n for n in range(10)]
    assert writer.flushes >= 3
