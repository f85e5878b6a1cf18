"""When micro-batches were due: by simulation of the rule by which Spark triggers, and for each kind of batch alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.streaming_progress import StreamingProgress
from pipeline.units import NS_PER_MS, NS_PER_S
from spark.triggers import Batch, Batches, trigger_ns


@given(st.integers(0, 2**61), st.floats(0.5, 60), st.floats(0, 0.99))
def test_trigger_of_a_first_batch_is_the_last_multiple(grid: int, trigger_s: float, late: float) -> None:
    """The first batch of a job may have records of an hour ago, and was due when it started."""
    interval_ns = round(trigger_s * NS_PER_S)
    grid_ns = grid // interval_ns * interval_ns
    started_ns = grid_ns + round(late * interval_ns)
    assert trigger_ns(started_ns, 0, None, trigger_s) == grid_ns


@pytest.mark.parametrize(
    ("started_s", "first_s", "previous_s", "due_s"),
    [
        pytest.param(12.1, 6.3, (6.0, 6.5), 12.0, id="punctual"),
        pytest.param(24.1, 19.0, (6.0, 6.5), 24.0, id="nothing-came-for-long"),
        pytest.param(18.1, 6.3, (6.0, 6.5), 12.0, id="the-question-for-the-end-took-an-interval"),
        pytest.param(13.1, 6.3, (6.0, 13.0), 13.0, id="overrun"),
        pytest.param(18.1, 12.9, (6.0, 13.0), 13.0, id="overrun-and-then-a-long-question"),
        pytest.param(24.3, 13.2, (6.0, 13.0), 18.0, id="after-an-overrun-without-records"),
        pytest.param(12.1, 12.05, (6.0, 6.5), 12.0, id="appended-just-after-the-trigger"),
        pytest.param(12.1, 5.9, (6.0, 6.5), 12.0, id="kafkas-clock-is-behind"),
        pytest.param(12.1, 15.0, (6.0, 6.5), 12.0, id="kafkas-clock-is-ahead"),
        pytest.param(12.1, 6.3, (6.0, 12.2), 12.1, id="the-clock-was-set-back"),
    ],
)
def test_trigger_is_the_first_that_can_have_read_the_batch(
    started_s: float, first_s: float, previous_s: tuple[float, float], due_s: float
) -> None:
    """A batch is due at the first multiple after its first record, or when the batch before ended, if that is later."""
    started_ns, first_ns, due_ns, *previous = (round(x * NS_PER_S) for x in (started_s, first_s, due_s, *previous_s))
    assert trigger_ns(started_ns, first_ns, Batch(*previous), 6.0) == due_ns


def report(number: int, fired_ns: int, ended_ns: int) -> StreamingProgress:
    """Return Spark's report of a batch."""
    took = {"addBatch": 1, "triggerExecution": (ended_ns - fired_ns) // NS_PER_MS}
    fired = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=fired_ns // 1000)
    return StreamingProgress(batch_id=number, timestamp=fired, num_input_rows=1, duration_ms=took)


def test_batches_knows_what_spark_reported() -> None:
    """Its report comes before what the emitter saw, if it is of the batch before; an idle trigger is no batch."""
    batches = Batches()
    assert batches.before(1) is None
    seen = Batch(6 * NS_PER_S, 7 * NS_PER_S)
    batches.emitted(seen)
    assert batches.before(1) == seen
    batches.report(report(0, 6 * NS_PER_S + 2 * NS_PER_MS, 8 * NS_PER_S))
    assert batches.before(1) == Batch(6 * NS_PER_S + 2 * NS_PER_MS, 8 * NS_PER_S)
    idle = StreamingProgress(1, datetime.fromtimestamp(12, UTC), 0, {"triggerExecution": 3})
    batches.report(idle)
    assert batches.before(1) == Batch(6 * NS_PER_S + 2 * NS_PER_MS, 8 * NS_PER_S)
    # The report of the batch before has not come yet.
    assert batches.before(2) == seen


STEP = st.tuples(
    st.integers(1, 2500),  # until the question for the topic's end is answered, ms
    st.integers(1, 4000),  # until the window is out
    st.integers(1, 1500),  # until the batch has ended
    st.integers(0, 30_000),  # by how long a machine that is suspended delays the trigger
    st.booleans(),  # whether Spark's report comes before the next batch
)


@given(st.lists(STEP, min_size=3, max_size=30))
def test_each_batch_of_a_simulated_spark_names_its_trigger(steps: list[tuple[int, int, int, int, bool]]) -> None:
    """Overruns, pauses, slow questions and slow commits: each batch names when it was due.

    Time is in ms, and the interval a second. A reaction is appended every 10 ms.
    """
    batches, now, next_ms, read_to, is_known = Batches(), 100_000, 100_000, 99_000, False
    for number, (asks, counts, commits, delay, is_reported) in enumerate(steps):
        due = max(now, next_ms)
        fired = due + (delay if delay > 25_000 else 0)
        next_ms = (fired // 1000 + 1) * 1000
        started = fired + asks
        named = trigger_ns(started * NS_PER_MS, (read_to + 10) * NS_PER_MS, batches.before(number), 1.0) // NS_PER_MS
        if is_known:
            assert named == due
        assert named <= started
        read_to, now = started, started + counts + commits
        batches.emitted(Batch(named * NS_PER_MS, (started + counts) * NS_PER_MS))
        is_known = is_reported
        if is_reported:
            batches.report(report(number, fired * NS_PER_MS, now * NS_PER_MS))
