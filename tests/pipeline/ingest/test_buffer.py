"""The buffer: its bound, what a flush takes, and when it wakes the flusher."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BufferFullError
from pipeline.ingest.buffer import RECORD_BYTES, Buffer


@given(
    limit=st.integers(1, 30),
    steps=st.lists(st.integers(0, 12) | st.sampled_from(["take", "done"]), max_size=40),
)
def test_bound_counts_waiting_and_in_flight_records(limit: int, steps: list[int | str]) -> None:
    """Never more than `limit` records are held, a request that does not fit is refused whole, and nothing is lost."""
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


def test_bound_counts_bytes_too() -> None:
    """Few large records fill it like many small ones; what Kafka has acknowledged makes room again."""
    buffer = Buffer(10, wake_at=10**9)
    buffer.add([bytes(4 * RECORD_BYTES), bytes(3 * RECORD_BYTES)])
    buffer.take()
    buffer.add([bytes(3 * RECORD_BYTES)])
    with pytest.raises(BufferFullError, match=r"5120 of 5120 bytes \(512 for each of buffer_max=10\) wait for Kafka"):
        buffer.add([b"x"])
    buffer.done()
    buffer.add([bytes(7 * RECORD_BYTES)])
    assert len(buffer) == 2


def test_largest_body_fits_into_a_small_buffer() -> None:
    """Otherwise a request that was allowed would be told for ever to try again."""
    buffer = Buffer(10, wake_at=10**9, least_bytes=20 * RECORD_BYTES)
    buffer.add([bytes(20 * RECORD_BYTES)])
    with pytest.raises(BufferFullError, match="10240 of 10240 bytes"):
        buffer.add([b"x"])


def test_senders_of_one_flush_share_its_future() -> None:
    """Records added before `take` share one future; records added later have another."""
    buffer = Buffer(10, wake_at=10**9)
    first, second = buffer.add([b"a"]), buffer.add([b"b"])
    _, taken = buffer.take()
    later = buffer.add([b"c"])
    assert first is second is taken
    assert later is not taken


def test_closed_buffer_takes_nothing() -> None:
    """Nobody would flush it: the request is refused, and what waited can still be taken."""
    buffer = Buffer(10, wake_at=3)
    buffer.add([b"a"])
    buffer.close()
    with pytest.raises(BufferFullError, match="this worker ends: try again"):
        buffer.add([b"b"])
    assert buffer.take()[0] == [b"a"]


def test_full_batch_sets_due() -> None:
    """`due` is set by the record that completes a batch, not before, and `take` clears it."""
    buffer = Buffer(10, wake_at=3)
    buffer.add([b"a", b"b"])
    assert not buffer.due.is_set()
    buffer.add([b"c"])
    assert buffer.due.is_set()
    buffer.take()
    assert not buffer.due.is_set()
