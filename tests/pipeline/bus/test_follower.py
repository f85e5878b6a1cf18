"""Following a topic: nothing missing between history and what comes, and no giving up at the first trouble."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.bus import follower as following
from pipeline.bus.base import Record
from pipeline.bus.follower import ALL, Follower
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec


class Troubled:
    """A reader that raises what it is told to before it goes on reading."""

    def __init__(self, troubles: int) -> None:
        self.troubles = troubles
        self.closed = False

    def poll(self, timeout_s: float) -> list[Record]:
        """Raise, or give one record."""
        self.troubles -= 1
        if self.troubles >= 0:
            raise OSError("the network is down")
        return [Record(0, 0, 0, None, b"x")]

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Try again at once."""
    monkeypatch.setattr(following, "RETRY_S", 0.0)
    return


def test_history_and_what_follows_join_without_a_gap() -> None:
    """The last records come at once, and exactly those after them are delivered, in order."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("t"))
    writer = bus.writer()
    for n in range(5):
        writer.send("t", b"%d" % n)
    heard: queue.Queue[bytes | None] = queue.Queue()
    with closing(Follower(bus, "t", pytest.fail)) as follower:
        assert [record.value for record in follower.history(2)] == [b"3", b"4"]
        writer.send("t", b"5")
        follower.start(lambda records, _ns: [heard.put(record.value) for record in records])
        writer.send("t", b"6")
        assert [heard.get(timeout=20) for _ in range(2)] == [b"5", b"6"]
        assert heard.empty()


def test_all_of_a_topic_is_its_history() -> None:
    """ALL leaves nothing out."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("t"))
    bus.writer().send("t", b"x")
    with closing(Follower(bus, "t", pytest.fail)) as follower:
        assert len(follower.history(ALL)) == 1


def test_trouble_that_passes_is_waited_out(impatient: None) -> None:
    """After errors that end, records come again and nothing is given up."""
    reader = Troubled(following.FAILURES_MAX)
    heard: queue.Queue[int] = queue.Queue(1)
    bus = MemoryBus()
    bus.reader = lambda *_: reader  # type: ignore[method-assign,assignment]
    with closing(Follower(bus, "t", pytest.fail)) as follower:
        follower.start(lambda records, _ns: heard.full() or heard.put(len(records)))
        assert heard.get(timeout=20) == 1
    assert reader.closed


def test_trouble_without_end_is_told_once(impatient: None) -> None:
    """The stage hears of it and can end with an error; the reader is closed."""
    reader = Troubled(10**9)
    failed: queue.Queue[BaseException] = queue.Queue()
    bus = MemoryBus()
    bus.reader = lambda *_: reader  # type: ignore[method-assign,assignment]
    with closing(Follower(bus, "t", failed.put)) as follower:
        follower.start(lambda records, _ns: None)
        assert isinstance(failed.get(timeout=20), OSError)
    assert failed.empty()
    assert reader.closed
