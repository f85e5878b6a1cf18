"""Following a topic: no gap between history and new records, and no giving up at the first error."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.bus import follower as following
from pipeline.bus.base import Record
from pipeline.bus.follower import Follower
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec
from pipeline.errors import MessageError
from tests.harness.waiting import until


class FailingReader:
    """A reader that raises `failures` times before it returns records."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.closed = False

    def poll(self, timeout_s: float) -> list[Record]:
        """Raise, or return one record."""
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("the network is down")
        return [Record(0, 0, 0, None, b"x")]

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


@pytest.fixture
def no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry at once."""
    monkeypatch.setattr(following, "RETRY_S", 0.0)
    return


def test_records_after_history_are_delivered_without_gap() -> None:
    """`history` returns the last records; exactly those after them are delivered, in order."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("t"))
    writer = bus.writer()
    for n in range(5):
        writer.send("t", b"%d" % n)
    received: queue.Queue[bytes | None] = queue.Queue()
    with closing(Follower(bus, "t", pytest.fail)) as follower:
        assert [record.value for record in follower.history(2)] == [b"3", b"4"]
        writer.send("t", b"5")
        follower.start(lambda records, _ns: [received.put(record.value) for record in records])
        writer.send("t", b"6")
        assert [received.get(timeout=240) for _ in range(2)] == [b"5", b"6"]
        assert received.empty()


def test_readable_history_looks_behind_other_records() -> None:
    """Those of another program do not count; `start` goes on behind them."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("t"))
    writer = bus.writer()
    for value in (b"0", b"1", b"2", *[b"nonsense"] * 20):
        writer.send("t", value)

    def number(value: bytes | None) -> int:
        if value == b"nonsense":
            raise MessageError("not a number")
        return int(value or b"")

    skipped: list[int] = []
    received: queue.Queue[bytes | None] = queue.Queue()
    with closing(Follower(bus, "t", pytest.fail)) as follower:
        records = follower.readable_history(2, number, lambda record, _reason: skipped.append(record.offset))
        assert [record.value for record in records] == [b"1", b"2"]
        assert sorted(skipped) == list(range(3, 23))
        writer.send("t", b"3")
        follower.start(lambda records, _ns: [received.put(record.value) for record in records])
        assert received.get(timeout=240) == b"3"
        assert received.empty()


def test_whole_history_yields_every_record_and_new_ones_follow() -> None:
    """What comes while it is read is delivered afterwards."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("t"))
    writer = bus.writer()
    writer.send("t", b"0")
    writer.send("t", b"1")
    received: queue.Queue[bytes | None] = queue.Queue()
    with closing(Follower(bus, "t", pytest.fail)) as follower:
        history = follower.whole_history()
        found = [next(history).value]
        writer.send("t", b"2")
        assert [*found, *(record.value for record in history)] == [b"0", b"1"]
        follower.start(lambda records, _ns: [received.put(record.value) for record in records])
        assert received.get(timeout=240) == b"2"


def test_follower_that_hangs_is_seen() -> None:
    """Its thread comes round, also without records; one that does not return from a call does not."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("t"))
    held, go_on = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        held.set()
        go_on.wait(240)

    with closing(Follower(bus, "t", pytest.fail)) as follower:
        assert follower.turns.stalled_s() == 0.0
        follower.start(hang)
        bus.writer().send("t", b"x")
        assert held.wait(240)
        until(lambda: follower.turns.stalled_s() > 0.5, "the follower does not come round")
        go_on.set()
    assert follower.turns.stalled_s() == 0.0


def test_temporary_read_errors_are_retried(no_retry_delay: None) -> None:
    """After the last error records are delivered, and `failed` is not called."""
    reader = FailingReader(following.FAILURES_MAX)
    received: queue.Queue[int] = queue.Queue(1)
    bus = MemoryBus()
    bus.reader = lambda *_: reader  # type: ignore[method-assign,assignment]
    with closing(Follower(bus, "t", pytest.fail)) as follower:
        follower.start(lambda records, _ns: received.full() or received.put(len(records)))
        assert received.get(timeout=240) == 1
    assert reader.closed


def test_lasting_read_errors_call_failed_once(no_retry_delay: None) -> None:
    """The stage gets the error and can end; the reader is closed."""
    reader = FailingReader(10**9)
    failed: queue.Queue[BaseException] = queue.Queue()
    bus = MemoryBus()
    bus.reader = lambda *_: reader  # type: ignore[method-assign,assignment]
    with closing(Follower(bus, "t", failed.put)) as follower:
        follower.start(lambda records, _ns: None)
        assert isinstance(failed.get(timeout=240), OSError)
    assert failed.empty()
    assert reader.closed
