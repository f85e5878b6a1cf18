"""Whether a run may be believed: each way of spoiling it is caught and said, and a good run is not accused."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from experiments.analysis import validity
from experiments.synthetic import run

RUN = run.make_run()
PLAN, SENT, TIMER, USAGE = (RUN.frames[name] for name in ("plan", "sent", "receivers_timer", "usage"))
CLIENTS, DELIVERIES, WINDOWS, PROGRESS = (RUN.frames[name] for name in ("clients", "deliveries", "windows", "progress"))
SPAN_NS = (int(PLAN["t_intended_ns"].min()), int(PLAN["t_intended_ns"].max()))
QUIET = {"spark": 0.3, "others": 0.04, "machine": 0.5}


def reasons(sent):
    """Return the reasons against the generator of the synthetic run."""
    return validity.generator(PLAN.merge(sent, on="seq", how="left")).reasons


def test_good_run_is_not_accused():
    """Nothing speaks against a faultless run."""
    assert reasons(SENT) == []
    assert validity.receivers(TIMER, SPAN_NS).reasons == []
    about = {"steal_s": 0.01 * SECONDS, "work_s": [0.01, 0.011], "other_run": False}
    assert validity.machine(QUIET, about, SPAN_NS).reasons == []
    assert framed() == []


def test_plan_not_sent_is_a_reason():
    """Under 99.9 % sent is INVALID, exactly 99.9 % is not."""
    n = len(PLAN)
    assert f"({n - n // 1000 - 1:,} of {n:,}" in reasons(SENT.iloc[n // 1000 + 1 :])[0]
    assert reasons(SENT.iloc[n // 1000 :]) == []


def test_slow_generator_is_a_reason():
    """A p99 of (sent - intended) above 50 ms is INVALID; the warm-up is not judged."""
    late = SENT["seq"] % 50 == 0
    slow = SENT.assign(t_sent_ns=SENT["t_sent_ns"] + late * 80_000_000)
    assert "fell behind" in reasons(slow)[0]
    warm_up = (PLAN["phase"] == "warm-up").to_numpy()
    assert reasons(SENT.assign(t_sent_ns=SENT["t_sent_ns"] + warm_up * 10**9)) == []


def test_single_stall_is_a_reason_though_p99_does_not_see_it():
    """A stall of a second delays less than 1 % of a run; it is named with its seq."""
    row = PLAN.index[PLAN["phase"] == "measured"][40]
    stalled = SENT.copy()
    stalled.loc[row, "t_sent_ns"] += 10**9
    found = reasons(stalled)
    assert len(found) == 1
    assert f"seq {PLAN.loc[row, 'seq']}" in found[0]


def test_run_in_which_nothing_was_sent_is_invalid():
    """No sends at all give reasons, not an error."""
    found = reasons(SENT.iloc[:0])
    assert "0 of" in found[0]
    assert "no measured reaction was sent" in found[1]


@pytest.mark.parametrize(("share", "bad"), [(0.89, False), (0.9, True), (1.0, True), (math.nan, False)])
def test_busy_users_are_a_reason(share, bad):
    """A closed loop's users are one process: with its core full its limit would be the chain's."""
    found = validity.crowd(share).reasons
    assert bool(found) == bad
    assert all("Lower users" in reason for reason in found)


@pytest.mark.parametrize(("late_ms", "share", "bad"), [(25, 0.002, True), (25, 0.0005, False), (19, 0.5, False)])
def test_receivers_that_oversleep_are_a_reason(late_ms, share, bad):
    """Judged is the value that one wake-up in a thousand exceeds, during the load."""
    during = TIMER[TIMER["t_ns"].between(*SPAN_NS)].index
    spoiled = TIMER.copy()
    spoiled.loc[during[: max(int(len(during) * share), 1)], "late_ns"] = late_ms * 10**6
    found = validity.receivers(spoiled, SPAN_NS)
    assert bool(found.reasons) == bad
    assert all("overslept by 25.0 ms at p99.9 (at most 20 ms)" in reason for reason in found.reasons)


def test_one_long_stall_counts_for_all_its_time():
    """A timer that oversleeps by 1.6 s has one row: the wake-ups that did not happen meanwhile count as well."""
    during = TIMER.index[TIMER["t_ns"].between(*SPAN_NS)]
    assert len(during) > 1_000
    stalled = TIMER.copy()
    stalled.loc[during[0], "late_ns"] = 1_600 * 10**6
    found = validity.receivers(stalled, SPAN_NS)
    assert found.reasons[0].startswith("The receivers were late")
    # Of 80 such, spaced by 20 ms, the one beyond which a thousandth of all lies.
    beyond = (len(during) + 80) // 1_000
    assert found.figures["receivers_late_p99.9_ms"] == pytest.approx(1_600 - 20 * beyond, abs=20)


def test_receivers_that_were_not_timed_are_a_reason():
    """No rows are no evidence; nor are rows from before the load."""
    assert "were not timed" in validity.receivers(TIMER.iloc[:0], SPAN_NS).reasons[0]
    before = TIMER.assign(t_ns=TIMER["t_ns"] - 10**12)
    assert "were not timed" in validity.receivers(before, SPAN_NS).reasons[0]


SECONDS = (SPAN_NS[1] - SPAN_NS[0]) / 1e9


@pytest.mark.parametrize(
    ("shares", "about", "said"),
    [
        ({"others": 0.09}, {"cores": 2}, "took 0.09 of 2 cores (at most 0.088)"),
        ({"others": 0.36}, {"cores": 8}, "took 0.36 of 8 cores (at most 0.35)"),
        ({}, {"cores": 2, "steal_s": 0.04 * SECONDS}, "0.04 of 2 cores was stolen (at most 0.036)"),
        ({}, {"work_s": [0.010, 0.0121]}, "took 10.0 ms before the chain began and 12.1 ms after it ended"),
        ({}, {"work_s": [0.0121, 0.010]}, "took 12.1 ms before the chain began and 10.0 ms after it ended"),
        ({}, {"other_run": True}, "Another run was active"),
    ],
)
def test_machine_that_was_not_ours_is_a_reason(shares, about, said):
    """Foreign processes, the host, a change of speed and another measurement each have a name."""
    found = validity.machine(QUIET | shares, about, SPAN_NS).reasons
    assert len(found) == 1
    assert said in found[0]


def test_shared_machine_is_recorded_and_not_judged():
    """A check beside other work is about counts; another measurement still spoils it."""
    about = {"cores": 2, "steal_s": 100.0, "work_s": [0.01, 0.02]}
    found = validity.machine(QUIET | {"others": 1.9}, about, SPAN_NS, shared=True)
    assert found.reasons == []
    assert found.figures["work_ratio"] == 2
    assert validity.machine(QUIET, {"other_run": True}, SPAN_NS, shared=True).reasons
    late = validity.receivers(TIMER.assign(late_ns=10**9), SPAN_NS, shared=True)
    assert (late.reasons, late.figures["receivers_late_p99.9_ms"]) == ([], 1000.0)


def framed(**changes):
    """Return the reasons against the synthetic run's frames with these changed."""
    whole = {"clients": CLIENTS, "deliveries": DELIVERIES, "usage": USAGE, "windows": WINDOWS, "progress": PROGRESS}
    return validity.frames(**{**whole, **changes}, asked_clients=len(CLIENTS), span_ns=SPAN_NS).reasons


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {
                "clients": CLIENTS[CLIENTS["client_id"] != "client-001"],
                "deliveries": DELIVERIES[DELIVERIES["client_id"] != "client-001"],
            },
            "5 of the 6 asked for",
        ),
        ({"deliveries": DELIVERIES[DELIVERIES["client_id"] != "client-001"]}, "1 of 6 (client-001)"),
        ({"usage": USAGE.iloc[:0]}, "CPU time was not sampled"),
        ({"progress": PROGRESS.iloc[::2]}, "no report for the windows 1, 3"),
        ({"windows": WINDOWS.drop(index=WINDOWS.index[3])}, "that no window shows: 3"),
    ],
)
def test_frame_that_lacks_rows_is_a_reason(changes, said):
    """A client that is in no frame, one that got nothing, no samples, and batches without their counterpart."""
    found = framed(**changes)
    assert len(found) == 1
    assert said in found[0]


def test_batch_before_the_first_window_is_not_the_runs():
    """On a chain that was up it holds records of others, and its window is left out."""
    assert framed(windows=WINDOWS.drop(index=WINDOWS.index[0])) == []


def test_report_of_the_last_window_may_come_too_late():
    """Spark reports a micro-batch after it has committed, and the run ends when the window has arrived."""
    last = PROGRESS["batch_id"] == WINDOWS["window"].max()
    assert framed(progress=pd.DataFrame(PROGRESS[~last])) == []
