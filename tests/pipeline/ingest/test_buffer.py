"""The buffer's bound and its flusher: when a flush begins, what it carries, and when its senders hear of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BufferFullError
from pipeline.ingest import buffer as module
from pipeline.ingest.buffer import Buffer, Flusher, wait_ns

MS = 1_000_000
LONG_MS = 60_000
# Nothing here waits so long unless it is broken.
DEADLINE_S = 20.0


class MemorySink:
    """Keeps each flush; acknowledges at once, or when it is told to."""

    lost = errors = 0

    def __init__(self, held: bool = False) -> None:
        self.changed = threading.Condition()
        self.flushes: list[list[bytes]] = []
        self.outstanding = 0
        self.held = held
        self.waits = 0
        self.closed = False

    def write(self, values: Sequence[bytes]) -> None:
        """Take a flush."""
        with self.changed:
            self.flushes.append(list(values))
            self.outstanding += len(values)
            self.changed.notify_all()

    def wait(self, timeout_s: float) -> int:
        """Wait for the acknowledgement that `release` gives."""
        with self.changed:
            self.waits += 1
            self.changed.notify_all()
            if self.changed.wait_for(lambda: not self.held, min(timeout_s, 0.01)):
                self.outstanding = 0
            return self.outstanding

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    def release(self) -> None:
        """Acknowledge everything, from now on."""
        with self.changed:
            self.held = False
            self.changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; fail at the deadline."""
        with self.changed:
            assert self.changed.wait_for(lambda: bool(condition()), DEADLINE_S)

    @property
    def values(self) -> list[int]:
        """The numbers that were sent, in order."""
        return [json.loads(value)["n"] for flush in self.flushes for value in flush]


def open_records(numbers: Sequence[int]) -> list[bytes]:
    """Return waiting records as intake makes them: an object that the flush closes."""
    return [b'{"n":%d' % number for number in numbers]


def flusher(
    buffer: Buffer, sink: MemorySink, flush_ms: int = LONG_MS, clock_ns: Callable[[], int] = lambda: 0
) -> Flusher:
    """Return a flusher that is not started; its clock stands still, so a long interval never ends by itself."""
    return Flusher(buffer, lambda: sink, flush_ms=flush_ms, lead_ms=50, aligned=True, clock_ns=clock_ns)


@given(
    now_ns=st.integers(0, 2**62),
    flush_ms=st.integers(1, 60_000),
    lead_ms=st.integers(0, 10_000),
    aligned=st.booleans(),
)
def test_the_next_flush_is_at_most_an_interval_away(now_ns: int, flush_ms: int, lead_ms: int, aligned: bool) -> None:
    """The wait is above zero and at most one interval; an aligned one ends `lead_ms` before a multiple of it."""
    interval_ns = flush_ms * MS
    wait = wait_ns(now_ns, flush_ms, lead_ms, aligned)
    assert 0 < wait <= interval_ns
    if aligned:
        assert (now_ns + wait + lead_ms * MS) % interval_ns == 0
    else:
        assert wait == interval_ns


@given(now_ns=st.integers(0, 2**62), trigger_flushes=st.integers(1, 100), flush_ms=st.integers(50, 5_000))
def test_a_flush_lands_just_before_every_trigger(now_ns: int, trigger_flushes: int, flush_ms: int) -> None:
    """With a trigger of whole intervals, going from flush to flush meets `lead_ms` before the next trigger."""
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
def test_without_an_interval_there_is_only_the_idle_round(now_ns: int, aligned: bool) -> None:
    """With `flush_ms` 0 the wait is the idle round's, never zero: the flusher must not spin."""
    assert wait_ns(now_ns, 0, 50, aligned) == module.IDLE_MS * MS


@given(
    limit=st.integers(1, 30),
    steps=st.lists(st.integers(0, 12) | st.sampled_from(["take", "done"]), max_size=40),
)
def test_the_bound_counts_what_waits_and_what_is_under_way(limit: int, steps: list[int | str]) -> None:
    """Never more than `limit` are held, a request that does not fit is refused whole, and nothing is lost."""
    buffer = Buffer(limit, wake_at=10**9)
    waiting: list[bytes] = []
    in_flight = taken = accepted = 0
    for number, step in enumerate(steps):
        if step == "take":
            records, _ = buffer.take()
            assert records == waiting
            taken += len(records)
            in_flight += len(records)
            waiting = []
        elif step == "done":
            buffer.done()
            in_flight = 0
        else:
            assert isinstance(step, int)
            records = [b"%d-%d" % (number, n) for n in range(step)]
            if len(waiting) + in_flight + step <= limit:
                buffer.add(records)
                waiting += records
                accepted += step
            else:
                with pytest.raises(BufferFullError, match=rf"of {limit} reactions \(buffer_max\).*try again later"):
                    buffer.add(records)
        assert len(buffer) == len(waiting) + in_flight <= limit
        assert buffer.accepted == accepted == taken + len(waiting)


def test_senders_of_one_flush_share_its_acknowledgement() -> None:
    """The future is that of the flush that will carry the reactions; those who come later have another."""
    buffer = Buffer(10, wake_at=10**9)
    first, second = buffer.add([b"a"]), buffer.add([b"b"])
    _, taken = buffer.take()
    later = buffer.add([b"c"])
    assert first is second is taken
    assert later is not taken


def test_a_full_batch_wakes_the_flusher() -> None:
    """The flusher is woken by the reaction that completes a batch, not before, and taking it puts it to sleep."""
    buffer = Buffer(10, wake_at=3)
    buffer.add([b"a", b"b"])
    assert not buffer.due.is_set()
    buffer.add([b"c"])
    assert buffer.due.is_set()
    buffer.take()
    assert not buffer.due.is_set()


def test_a_batch_leaves_before_its_interval_ends() -> None:
    """`flush_batch` reactions are flushed at once, in order, with the flush's stamp, and their senders hear of it."""
    buffer, sink = Buffer(100, wake_at=3), MemorySink()
    flushing = flusher(buffer, sink, clock_ns=lambda: 7)
    flushing.start()
    buffer.add(open_records([1, 2]))
    buffer.add(open_records([3])).result(DEADLINE_S)
    assert sink.values == [1, 2, 3]
    assert {json.loads(value)["flushed_ns"] for value in sink.flushes[0]} == {7}
    assert flushing.close() == 0


def test_flushes_follow_the_clock() -> None:
    """Just before the grid a flush comes by itself; just after it, none does until the end."""
    for clock_ns, comes in ((LONG_MS * MS - 51 * MS, True), (LONG_MS * MS - 49 * MS, False)):
        buffer, sink = Buffer(100, wake_at=10**9), MemorySink()
        flushing = flusher(buffer, sink, clock_ns=lambda now_ns=clock_ns: now_ns)
        flushing.start()
        flushed = buffer.add(open_records([1]))
        if comes:
            flushed.result(DEADLINE_S)
        else:
            with pytest.raises(FutureTimeout):
                flushed.result(0.1)
        assert flushing.close() == 0
        assert sink.values == [1]


def test_the_end_flushes_what_waits() -> None:
    """`close` sends what has not been sent, tells its senders, and gives the connection back."""
    buffer, sink = Buffer(100, wake_at=10**9), MemorySink()
    flushing = flusher(buffer, sink)
    flushing.start()
    flushed = buffer.add(open_records(range(5)))
    assert flushing.close() == 0
    assert sink.values == list(range(5))
    assert flushed.done()
    assert sink.closed
    assert len(buffer) == 0


def test_one_flush_is_under_way_at_a_time() -> None:
    """While Kafka is slow, what comes waits within the buffer's bound, and nobody is told before it is acknowledged."""
    buffer, sink = Buffer(5, wake_at=1), MemorySink(held=True)
    flushing = flusher(buffer, sink)
    flushing.start()
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
    assert sink.values == [0, 1, 2, 3, 4]
    assert flushing.close() == 0


def test_silence_is_that_of_the_flush_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long Kafka has been silent counts from the flush's beginning, and is 0 as soon as it answers."""
    buffer, sink = Buffer(100, wake_at=1), MemorySink(held=True)
    flushing = flusher(buffer, sink)
    flushing.start()
    assert flushing.silent_s() == 0.0
    flushed = buffer.add(open_records([1]))
    sink.until(lambda: sink.waits)
    now_s = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s + 100.0)
    assert flushing.silent_s() >= 100.0
    monkeypatch.undo()
    sink.release()
    flushed.result(DEADLINE_S)
    assert flushing.silent_s() == 0.0
    assert flushing.close() == 0


@pytest.mark.parametrize("waiting", [0, 2])
def test_the_end_has_a_deadline_and_says_what_it_gave_up(waiting: int) -> None:
    """A Kafka that does not answer holds the end up only so long; what it did not take is counted, all of it."""
    buffer, sink = Buffer(100, wake_at=3), MemorySink(held=True)
    flushing = flusher(buffer, sink)
    flushing.start()
    flushed = buffer.add(open_records([0, 1, 2]))
    sink.until(lambda: sink.waits)
    later = buffer.add(open_records(range(3, 3 + waiting)))
    assert flushing.close(timeout_s=0.05) == 3 + waiting
    assert not flushed.done()
    assert later.done() is (waiting == 0)
    assert sink.closed


def test_what_was_given_up_late_is_not_counted() -> None:
    """If Kafka comes back between the deadline of one flush and the next, everything has been taken after all."""
    buffer, sink = Buffer(100, wake_at=1), MemorySink(held=True)
    flushing = flusher(buffer, sink)
    flushing.start()
    buffer.add(open_records([0]))
    sink.until(lambda: sink.waits)
    sink.release()
    assert flushing.close() == 0
    assert sink.values == [0]


def test_no_reaction_is_lost_between_many_senders_and_the_flusher() -> None:
    """Eight threads add while flushes take: each reaction is sent once, and each sender's stay in order."""
    buffer, sink = Buffer(100_000, wake_at=7), MemorySink()
    flushing = flusher(buffer, sink, flush_ms=1)
    flushing.start()
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
    assert flushing.close() == 0
    for sender in range(8):
        own = [value for value in sink.values if value // 1_000 == sender]
        assert own == [sender * 1_000 + number for number in range(250)]


def test_a_worker_whose_flusher_fails_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that can no longer flush must not go on accepting: it exits, for the server to start another."""
    ended: list[int] = []
    over = threading.Event()
    monkeypatch.setattr(module.os, "_exit", lambda code: (ended.append(code), over.set()))
    flushing = Flusher(Buffer(10, 1), lambda: 1 / 0, flush_ms=1, lead_ms=0, aligned=True)  # type: ignore[arg-type,return-value]
    flushing.start()
    assert over.wait(DEADLINE_S)
    assert ended == [1]
