"""The verdict: objectives, their limits, and what verdict.json holds."""

from __future__ import annotations

import json
import math

import pytest

from experiments.analysis import verdict


def test_integrity_is_judged_whatever_a_design_names():
    """A design sets limits; a chain that errs passes under none."""
    named = verdict.objectives({"e2e_excess_p99_s": 2.0, "lost": 3})
    limits = {slo.key: slo.limit for slo in named}
    assert set(limits) == {"e2e_excess_p99_s", *verdict.INTEGRITY}
    assert (limits["e2e_excess_p99_s"], limits["lost"], limits["altered"]) == (2.0, 3, 0)
    assert set(verdict.INTEGRITY) <= set(verdict.SLOS)


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


@pytest.mark.parametrize(("figure", "passed"), [(0, True), (-3, False), (3, False)])
def test_count_of_faults_may_be_off_neither_way(figure, passed):
    """A sum that is too small is as wrong as one that is too large."""
    assert verdict.SLOS["unexplained"].judge({"unexplained": figure}).passed is passed


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


def test_change_during_the_measurement_makes_a_valid_run_unsteady_and_leaves_an_invalid_one_invalid():
    """UNSTEADY is neither valid nor passed; a reason to disbelieve the run weighs more, and both are named."""
    unsteady = verdict.judge([], {}, [], unsteady=["It fell."])
    assert (unsteady.word, unsteady.valid, unsteady.unsteady, unsteady.passed) == ("UNSTEADY", False, True, False)
    assert unsteady.to_json()["reasons"] == ["It fell."]
    both = verdict.judge(["The clock stepped."], {}, [], unsteady=["It fell."])
    assert (both.word, both.unsteady, both.reasons) == ("INVALID", False, ("The clock stepped.", "It fell."))
