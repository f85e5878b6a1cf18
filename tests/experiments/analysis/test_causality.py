"""Whether the clocks can be believed: wrong ones are caught and named, and good ones are not accused."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import ledger
from experiments.analysis import causality, latency
from experiments.synthetic import run
from experiments.units import NS_PER_MS, NS_PER_S

RUN = run.make_run()
CLOCK = RUN.manifest["clock_samples"]
WINDOWS, PROGRESS = RUN.frames["windows"], RUN.frames["progress"]
SPAN_NS = (int(RUN.frames["plan"]["t_intended_ns"].min()), int(RUN.frames["plan"]["t_intended_ns"].max()))
TRIGGER_S = 6.0


def joined(topic=RUN.frames["topic"], windows=WINDOWS):
    """Return the ledger of the synthetic run."""
    return ledger.join(RUN.frames["plan"], RUN.frames["sent"], topic, windows)


def due(deliveries=RUN.frames["deliveries"], windows=WINDOWS):
    """Return the receipts of the synthetic run."""
    return latency.receipts(windows, RUN.frames["clients"], deliveries, grace_s=0.0)


def test_good_clocks_are_not_accused():
    """Nothing speaks against a faultless run."""
    assert causality.clock(CLOCK, SPAN_NS).reasons == []
    assert causality.broker(joined(), TRIGGER_S).reasons == []
    assert causality.causes(joined(), due()).reasons == []
    assert causality.triggers(WINDOWS, PROGRESS, TRIGGER_S).reasons == []


@pytest.mark.parametrize("by_ms", [-3600_000, -6, 6, 3600_000])
def test_step_of_the_clock_is_a_reason(by_ms):
    """A step either way above 5 ms is named with its size and time."""
    stepped = [[t + (by_ms * 10**6 if i >= 30 else 0), m] for i, (t, m) in enumerate(CLOCK)]
    assert f"stepped by {by_ms:+.1f} ms, 30.0 s" in causality.clock(stepped, SPAN_NS).reasons[0]


@pytest.mark.parametrize(("us_per_s", "bad"), [(500, False), (-500, False), (4900, True), (-4900, True)])
def test_drift_of_the_clock_is_a_reason(us_per_s, bad):
    """0.5 ms per second is time synchronisation at work; 4.9 ms per second is below every step, and wrong."""
    found = causality.clock([[t + i * us_per_s * 1000, m] for i, (t, m) in enumerate(CLOCK)], SPAN_NS)
    assert found.figures["clock_drift_ms_per_s"] == pytest.approx(us_per_s / 1000)
    assert bool(found.reasons) == bad
    assert all(f"{us_per_s / 1000:+.2f} ms per second (at most 1)" in reason for reason in found.reasons)


def test_drift_forth_and_back_is_a_reason():
    """It ends where it began, and is wrong by 100 ms in the middle; 0.9 ms per second all the time is allowed."""
    found = causality.clock([[t + min(i, 50 - i) * 4 * NS_PER_MS, m] for i, (t, m) in enumerate(CLOCK[:51])], SPAN_NS)
    assert "drifted by +40.0 ms in 10 s, or +4.00 ms per second" in found.reasons[0]
    steady = causality.clock([[t + i * 900_000, m] for i, (t, m) in enumerate(CLOCK)], SPAN_NS)
    assert steady.reasons == []


def test_unwatched_clock_is_a_reason():
    """No samples are no evidence, nor are those of a part of the run."""
    assert "not watched for 11 s" in causality.clock([*CLOCK[:20], *CLOCK[30:]], SPAN_NS).reasons[0]
    assert "The clock was not watched for" in causality.clock(CLOCK[:10], SPAN_NS).reasons[0]
    assert "not watched (1 samples)" in causality.clock(CLOCK[:1], SPAN_NS).reasons[0]


@pytest.mark.parametrize("by_ms", [3000, -3000, 15, -15])
def test_clock_of_the_broker_is_a_reason(by_ms):
    """Kafka's stamps differ from ours by more than an append takes."""
    topic = RUN.frames["topic"]
    found = causality.broker(joined(topic.assign(appended_ns=topic["appended_ns"] + by_ms * NS_PER_MS)), TRIGGER_S)
    assert "Kafka's clock differs" in found.reasons[0]


def test_slow_appends_do_not_accuse_the_broker():
    """An append may take long, and so may all of two windows; the quickest of 15 seconds does not."""
    reactions = joined()
    slow = reactions["window"].isin([3, 4]).to_numpy(dtype=bool)
    reactions["appended_ns"] += np.where(slow, 300, 0) * NS_PER_MS
    assert causality.broker(reactions, TRIGGER_S).reasons == []


def test_short_windows_are_judged_over_as_much_time():
    """With windows of a second, three slow ones are three seconds, and do not accuse the broker."""
    reactions = joined()
    slow = reactions["window"].isin([3, 4, 5]).to_numpy(dtype=bool)
    reactions["appended_ns"] += np.where(slow, 50, 0) * NS_PER_MS
    assert causality.broker(reactions, 1.0).reasons == []


def test_broker_that_is_wrong_for_a_while_is_a_reason():
    """Three neighbouring windows, of 18 s, tell Kafka's clock."""
    reactions = joined()
    ahead = reactions["window"].isin([3, 4, 5]).to_numpy(dtype=bool)
    reactions["appended_ns"] += np.where(ahead, 50, 0) * NS_PER_MS
    assert "Kafka's clock differs" in causality.broker(reactions, TRIGGER_S).reasons[0]


@pytest.mark.parametrize(
    ("stamp", "by_ms"),
    [("t_sent_ns", -2), ("accepted_ns", -5), ("flushed_ns", -600), ("appended_ns", -20), ("appended_ns", 9000)],
)
def test_stamp_of_a_reaction_before_its_cause_is_a_reason(stamp, by_ms):
    """One reaction is enough."""
    reactions = joined()
    reactions.loc[500, stamp] += by_ms * NS_PER_MS
    found = causality.causes(reactions, due())
    assert found.figures["before_their_cause"] >= 1
    assert "Effects lie before their causes" in found.reasons[0]


@pytest.mark.parametrize("stamp", ["main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns", "received_ns"])
def test_stamp_of_a_delivery_before_its_cause_is_a_reason(stamp):
    """Of one client, in one window."""
    deliveries = RUN.frames["deliveries"].copy()
    deliveries.loc[deliveries.index[7], stamp] -= 30 * NS_PER_MS
    assert "Effects lie before their causes" in causality.causes(joined(), due(deliveries)).reasons[0]


def test_append_within_its_resolution_is_not_accused():
    """Kafka cuts its stamps to whole milliseconds."""
    reactions = joined()
    reactions["appended_ns"] = reactions["flushed_ns"] - NS_PER_MS + 1
    assert causality.causes(reactions, due()).reasons == []


@pytest.mark.parametrize("by_s", [1.0, -1.0, 6.0, -6.0])
def test_wrong_trigger_is_a_reason(by_s):
    """Off the grid, or on it and contradicted by its neighbours or by Spark's own report."""
    windows = WINDOWS.copy()
    windows.loc[3, "trigger_ns"] += round(by_s * NS_PER_S)
    found = causality.triggers(windows, PROGRESS, TRIGGER_S)
    assert found.figures["triggers_wrong"] >= 1
    assert "Triggers are wrong: that of window" in found.reasons[0]


def test_trigger_after_an_overrun_is_not_accused():
    """A micro-batch that was still running at the grid's moment: the next starts as soon as it has ended."""
    windows, progress = WINDOWS.copy(), PROGRESS.copy()
    ended_ns = int(windows.loc[4, "trigger_ns"]) + 700 * NS_PER_MS
    windows.loc[3, "emitted_ns"] = ended_ns - NS_PER_MS
    windows.loc[4, "trigger_ns"] = ended_ns
    progress.loc[progress["batch_id"] == 4, "trigger_start_ns"] = ended_ns
    windows.loc[4, "emitted_ns"] = ended_ns + 300 * NS_PER_MS
    assert causality.triggers(windows, progress, TRIGGER_S).reasons == []


def test_gap_in_the_windows_accuses_no_trigger():
    """Windows without records are not emitted: the one after such a gap follows none."""
    kept = WINDOWS.drop(index=[2, 3])
    assert causality.triggers(kept, PROGRESS, TRIGGER_S).reasons == []
