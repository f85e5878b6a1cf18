"""The flusher: when a flush begins, what it carries, and when its senders are notified."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BufferFullError
from pipeline.ingest import flusher as module
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher, wait_ns
from tests.harness.stages.doubles import MemorySink
from tests.harness.waiting import until

MS = 1_000_000
LONG_MS = 60_000
# Longer than any wait of a passing test.
DEADLINE_S = 60.0


def numbers_in(sink: MemorySink) -> list[int]:
    """Return the numbers that were sent, in order."""
    return [json.loads(value)["n"] for value in sink.values]


def open_records(numbers: Sequence[int]) -> list[bytes]:
    """Return waiting records as intake makes them: an open object that the flush closes."""
    return [b'{"n":%d' % number for number in numbers]


def make_flusher(
    buffer: Buffer, sink: MemorySink, flush_ms: int = LONG_MS, clock_ns: Callable[[], int] = lambda: 0
) -> Flusher:
    """Return a flusher that is not started; its clock does not move, so a long interval never ends by itself."""
    return Flusher(buffer, lambda: sink, flush_ms=flush_ms, lead_ms=50, aligned=True, clock_ns=clock_ns)


@given(
    now_ns=st.integers(0, 2**62),
    flush_ms=st.integers(1, 60_000),
    lead_ms=st.integers(0, 10_000),
    aligned=st.booleans(),
)
def test_wait_is_at_most_one_interval(now_ns: int, flush_ms: int, lead_ms: int, aligned: bool) -> None:
    """The wait is above zero and at most one interval; an aligned one ends `lead_ms` before a multiple of it."""
    interval_ns = flush_ms * MS
    wait = wait_ns(now_ns, flush_ms, lead_ms, aligned)
    assert 0 < wait <= interval_ns
    if aligned:
        assert (now_ns + wait + lead_ms * MS) % interval_ns == 0
    else:
        assert wait == interval_ns


@given(now_ns=st.integers(0, 2**62), trigger_flushes=st.integers(1, 100), flush_ms=st.integers(50, 5_000))
def test_aligned_flush_comes_just_before_every_trigger(now_ns: int, trigger_flushes: int, flush_ms: int) -> None:
    """With a trigger of whole intervals, one of the flushes is exactly `lead_ms` before the next trigger."""
    lead_ms = 50
    trigger_ns = trigger_flushes * flush_ms * MS
    due_ns = (now_ns + lead_ms * MS) // trigger_ns * trigger_ns + trigger_ns - lead_ms * MS
    at_ns = now_ns
    for _ in range(trigger_flushes + 1):
        at_ns += wait_ns(at_ns, flush_ms, lead_ms, True)
        if at_ns >= due_ns:
            break
    assert at_ns == due_ns


@given(now_ns=st.integers(0, 2**62), aligned=st.booleans())
def test_flush_ms_0_waits_the_idle_interval(now_ns: int, aligned: bool) -> None:
    """With `flush_ms` 0 the wait is the idle interval, never zero: the flusher must not spin."""
    assert wait_ns(now_ns, 0, 50, aligned) == module.IDLE_MS * MS


def test_full_batch_is_flushed_at_once() -> None:
    """`flush_batch` reactions leave before the interval ends, in order and stamped, and their future is done."""
    buffer, sink = Buffer(100, wake_at=3), MemorySink()
    flusher = make_flusher(buffer, sink, clock_ns=lambda: 7)
    flusher.start()
    buffer.add(open_records([1, 2]))
    buffer.add(open_records([3])).result(DEADLINE_S)
    assert numbers_in(sink) == [1, 2, 3]
    assert {json.loads(value)["flushed_ns"] for value in sink.flushes[0]} == {7}
    assert flusher.close() == 0


def test_flushes_follow_the_clock() -> None:
    """Just before a multiple of the interval a flush comes by itself; just after it, none comes until `close`."""
    for clock_ns, flush_expected in ((LONG_MS * MS - 51 * MS, True), (LONG_MS * MS - 49 * MS, False)):
        buffer, sink = Buffer(100, wake_at=10**9), MemorySink()
        flusher = make_flusher(buffer, sink, clock_ns=lambda now_ns=clock_ns: now_ns)
        flusher.start()
        flushed = buffer.add(open_records([1]))
        if flush_expected:
            flushed.result(DEADLINE_S)
        else:
            with pytest.raises(FutureTimeout):
                flushed.result(0.1)
        assert flusher.close() == 0
        assert numbers_in(sink) == [1]


def test_close_flushes_waiting_records() -> None:
    """`close` sends the waiting records, completes their future, and closes the sink."""
    buffer, sink = Buffer(100, wake_at=10**9), MemorySink()
    flusher = make_flusher(buffer, sink)
    flusher.start()
    flushed = buffer.add(open_records(range(5)))
    assert flusher.close() == 0
    assert numbers_in(sink) == list(range(5))
    assert flushed.done()
    assert sink.closed
    with pytest.raises(BufferFullError, match="this worker ends"):
        buffer.add(open_records([6]))
    assert len(buffer) == 0


def test_only_one_flush_at_a_time() -> None:
    """While Kafka is slow, new records wait within the buffer's bound; no future is done before the acknowledgement."""
    buffer, sink = Buffer(5, wake_at=1), MemorySink(held=True)
    flusher = make_flusher(buffer, sink)
    flusher.start()
    first = buffer.add(open_records([0, 1]))
    sink.until(lambda: sink.waits >= 2)
    second = buffer.add(open_records([2, 3, 4]))
    with pytest.raises(BufferFullError):
        buffer.add(open_records([5]))
    waits = sink.waits
    sink.until(lambda: sink.waits >= waits + 2)
    assert len(sink.flushes) == 1
    assert not first.done()
    assert not second.done()
    sink.release()
    second.result(DEADLINE_S)
    assert first.done()
    assert numbers_in(sink) == [0, 1, 2, 3, 4]
    assert flusher.close() == 0


def test_silence_counts_from_the_start_of_the_current_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """`silent_s` counts from the flush's start, and is 0 as soon as Kafka acknowledges."""
    buffer, sink = Buffer(100, wake_at=1), MemorySink(held=True)
    flusher = make_flusher(buffer, sink)
    flusher.start()
    assert flusher.silent_s() == 0.0
    flushed = buffer.add(open_records([1]))
    sink.until(lambda: sink.waits)
    now_s = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s + 100.0)
    assert flusher.silent_s() >= 100.0
    monkeypatch.undo()
    sink.release()
    flushed.result(DEADLINE_S)
    assert flusher.silent_s() == 0.0
    assert flusher.close() == 0


def test_flusher_comes_round_unless_its_sink_hangs() -> None:
    """It rests between flushes, and goes on while Kafka is away; a call that does not return is a hang."""
    buffer, sink = Buffer(100, wake_at=1), MemorySink(held=True)
    flusher = make_flusher(buffer, sink)
    flusher.start()
    assert flusher.turns.stalled_s() == 0.0
    flushed = buffer.add(open_records([1]))
    before = sink.waits
    sink.until(lambda: sink.waits >= before + 2)
    with sink.changed:
        # The flusher waits for this lock, which Kafka's client might as well hold.
        until(lambda: flusher.turns.stalled_s() > 0.5, "the flusher does not come round")
    sink.release()
    flushed.result(DEADLINE_S)
    until(lambda: flusher.turns.stalled_s() == 0.0, "the flusher rests")
    assert flusher.close() == 0


@pytest.mark.parametrize("waiting", [0, 2])
def test_close_gives_up_at_its_deadline_and_returns_the_count(waiting: int) -> None:
    """Without an acknowledgement `close` returns after its timeout, with the number of all records given up."""
    buffer, sink = Buffer(100, wake_at=3), MemorySink(held=True)
    flusher = make_flusher(buffer, sink)
    flusher.start()
    flushed = buffer.add(open_records([0, 1, 2]))
    sink.until(lambda: sink.waits)
    later = buffer.add(open_records(range(3, 3 + waiting)))
    assert flusher.close(timeout_s=0.05) == 3 + waiting
    assert not flushed.done()
    assert later.done() is (waiting == 0)
    assert sink.closed


def test_records_acknowledged_during_close_are_not_given_up() -> None:
    """If Kafka acknowledges while `close` waits, no record is given up."""
    buffer, sink = Buffer(100, wake_at=1), MemorySink(held=True)
    flusher = make_flusher(buffer, sink)
    flusher.start()
    buffer.add(open_records([0]))
    sink.until(lambda: sink.waits)
    sink.release()
    assert flusher.close() == 0
    assert numbers_in(sink) == [0]


def test_concurrent_senders_lose_no_reaction() -> None:
    """Eight threads add during flushes: each reaction is sent once, and each sender's reactions stay in order."""
    buffer, sink = Buffer(100_000, wake_at=7), MemorySink()
    flusher = make_flusher(buffer, sink, flush_ms=1)
    flusher.start()
    barrier = threading.Barrier(8)

    def send(sender: int) -> None:
        barrier.wait(DEADLINE_S)
        for number in range(250):
            buffer.add(open_records([sender * 1_000 + number]))

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert flusher.close() == 0
    for sender in range(8):
        received = [value for value in numbers_in(sink) if value // 1_000 == sender]
        assert received == [sender * 1_000 + number for number in range(250)]


def test_failing_flusher_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that can no longer flush must not accept more: it exits, and the server starts another."""
    ended: list[int] = []
    over = threading.Event()
    monkeypatch.setattr(module.os, "_exit", lambda code: (ended.append(code), over.set()))
    flusher = Flusher(Buffer(10, 1), lambda: 1 / 0, flush_ms=1, lead_ms=0, aligned=True)  # type: ignore[arg-type,return-value]
    flusher.start()
    assert over.wait(DEADLINE_S)
    assert ended == [1]
