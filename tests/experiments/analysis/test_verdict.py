"""The verdict: each way of spoiling a run is caught, and said."""

from __future__ import annotations

import json
import math

import pytest

from experiments.analysis import verdict
from experiments.synthetic import run

RUN = run.make_run()
PLAN, SENT = RUN.frames["plan"], RUN.frames["sent"]
CLOCK = RUN.manifest["clock_samples"]


def reasons(sent=SENT, clock=CLOCK, other_run=False):
    """Return the reasons against the synthetic run."""
    return verdict.reasons_against(PLAN, sent, clock, other_run=other_run)


def test_a_good_run_is_valid():
    """Nothing speaks against a faultless run."""
    assert reasons() == []


def test_another_run_is_a_reason():
    """Two runs at once spoil each other."""
    assert "Another run" in reasons(other_run=True)[0]


def test_a_plan_not_sent_is_a_reason():
    """Under 99 % sent is INVALID, exactly 99 % is not."""
    n = len(PLAN)
    assert f"({n - n // 50 - 1:,} of {n:,}" in reasons(SENT.iloc[n // 50 + 1 :])[0]
    assert reasons(SENT.iloc[n // 100 :]) == []


def test_a_slow_generator_is_a_reason():
    """A p99 of (sent - intended) above 50 ms is INVALID; the warm-up is not judged."""
    late = SENT["seq"] % 50 == 0
    slow = SENT.assign(t_sent_ns=SENT["t_sent_ns"] + late * 80_000_000)
    assert "fell behind" in reasons(slow)[0]
    warm_up = (PLAN["phase"] == "warm-up").to_numpy()
    assert reasons(SENT.assign(t_sent_ns=SENT["t_sent_ns"] + warm_up * 10**9)) == []


def test_a_single_stall_is_a_reason_though_p99_does_not_see_it():
    """A stall of a second delays less than 1 % of a run; it is named with its seq."""
    row = PLAN.index[PLAN["phase"] == "measured"][40]
    stalled = SENT.copy()
    stalled.loc[row, "t_sent_ns"] += 10**9
    found = reasons(stalled)
    assert len(found) == 1
    assert f"seq {PLAN.loc[row, 'seq']}" in found[0]


@pytest.mark.parametrize(("share", "bad"), [(0.89, False), (0.9, True), (1.0, True), (math.nan, False)])
def test_busy_users_are_a_reason(share, bad):
    """A closed loop's users are one process: with its core full its limit would be the chain's."""
    found = verdict.reasons_against_crowd(share)
    assert bool(found) == bad
    assert all("Lower users" in reason for reason in found)


def test_integrity_is_judged_whatever_a_design_names():
    """A design sets limits; a chain that errs passes under none."""
    named = verdict.objectives({"e2e_excess_p99_s": 2.0, "lost": 3})
    limits = {slo.key: slo.limit for slo in named}
    assert set(limits) == {"e2e_excess_p99_s", *verdict.INTEGRITY}
    assert (limits["e2e_excess_p99_s"], limits["lost"], limits["altered"]) == (2.0, 3, 0)
    assert set(verdict.INTEGRITY) <= set(verdict.SLOS)


@pytest.mark.parametrize("by_ms", [-3600_000, -6, 6, 3600_000])
def test_a_clock_step_is_a_reason(by_ms):
    """A step either way above 5 ms is named with its size and time."""
    stepped = [[t + (by_ms * 10**6 if i >= 30 else 0), m] for i, (t, m) in enumerate(CLOCK)]
    found = reasons(clock=stepped)
    assert f"stepped by {by_ms:+.1f} ms, 30.0 s" in found[0]


def test_slewing_is_not_a_step_and_an_unwatched_clock_is_a_reason():
    """0.5 ms a second is time synchronisation at work; no samples is no evidence."""
    assert reasons(clock=[[t + i * 500_000, m] for i, (t, m) in enumerate(CLOCK)]) == []
    assert "not watched (1 samples)" in reasons(clock=CLOCK[:1])[0]


def test_a_run_in_which_nothing_was_sent_is_invalid():
    """No sends at all give reasons, not an error."""
    found = reasons(SENT.iloc[:0])
    assert "0 of" in found[0]
    assert "no measured reaction was sent" in found[1]


@pytest.mark.parametrize(
    ("figure", "at_least", "passed"),
    [
        (0.5, False, True),
        (0.51, False, False),
        (math.inf, False, False),
        (math.nan, False, False),
        (None, False, False),
        (0.5, True, True),
        (0.49, True, False),
    ],
)
def test_objectives_hold_at_their_limit_and_fail_unmeasured(figure, at_least, passed):
    """The limit itself passes; what was not measured or never arrived fails."""
    slo = verdict.Slo("some", "figure", 0.5, "s", at_least)
    assert slo.judge({"figure": figure}).passed is passed


def test_micro_batch_objective_follows_short_triggers():
    """Below a trigger of 0.75 s, 0.8 T is the stricter limit."""
    limits = {slo.key: slo.limit for slo in verdict.objectives(trigger_s=0.5)}
    assert limits["batch_p95_s"] == pytest.approx(0.4)
    assert {slo.key: slo.limit for slo in verdict.objectives()}["batch_p95_s"] == 0.6


def test_verdict_is_strict_json():
    """An infinite or missing figure is written in a way every JSON reader takes."""
    judged = verdict.judge(["why"], {"a": math.inf}, [verdict.Slo("a", "a", 1, "s"), verdict.Slo("b", "b", 1, "")])
    read = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    assert read["verdict"] == "INVALID"
    assert [slo["figure"] for slo in read["slos"]] == ["inf", None]
    assert not judged.passed
