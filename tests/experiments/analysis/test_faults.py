"""Each fault of the catalogue, planted in the frames of a synthetic run: caught and rightly named by the analysis.

What the parts do with many shapes of the same faults is tested where the parts are. Here a whole analysis has to come
to the right end, and the report's first paragraph has to say so.
"""

from __future__ import annotations

import time

import pytest

from experiments.analysis import causality
from experiments.analysis.analyse import analyse
from experiments.instrument import frame_faults
from experiments.instrument.fault import Outcome, names
from experiments.instrument.frame_faults import CASUALTY, FAULTS, WINDOW, planted
from experiments.machine import clock_watch
from experiments.report.sentences import findings
from experiments.synthetic import run

# Long enough for the growth of the lag to be told.
RUN = run.make_run(measured_triggers=12)
PLAN, WINDOWS = RUN.frames["plan"], RUN.frames["windows"]
VICTIM = PLAN.loc[CASUALTY, "user_id"]
SENTENCES = {
    "generator-stalled": "the generator stalled",
    "lost": "one reaction lost",
    "doubled": "one reaction counted more than once",
    "count-raised": "one count differing from what the topic holds",
    "clock-stepped": "the clock stepped by +10.0 ms",
    "subscriber-slow": f"{2 * len(WINDOWS)} late (at subscriber 2/1)",
    "delivery-altered": "1 altered",
    "window-not-emitted": "of unknown windows",
}
"""What the first paragraph says of some faults."""


def examined(name):
    """Return (analysis, first paragraph) of the synthetic run with a fault of the catalogue."""
    frames, about = planted(FAULTS[name], RUN)
    result = analyse(frames, RUN.parameters, about)
    return result, " ".join(findings(result.summary, RUN.parameters))


def test_a_faultless_run_is_valid_and_passes():
    """Without a fault nothing is caught: what follows is caught for its own sake."""
    result = analyse(RUN.frames, RUN.parameters, RUN.manifest)
    assert result.verdict.passed
    assert names(result.verdict) == ()
    assert len(result.conservation.problems) == 0
    words = " ".join(findings(result.summary, RUN.parameters))
    assert not {"INVALID", "lost", "late", "differing"} & set(words.split())


@pytest.mark.parametrize("name", FAULTS)
def test_fault_in_frames_is_caught_under_its_name(name):
    """Every expected name is there, and none that does not follow from it. The first paragraph has the verdict."""
    result, words = examined(name)
    outcome = Outcome.of(FAULTS[name], "frames", names(result.verdict))
    assert outcome.caught
    assert outcome.named, f"found {outcome.found}, expected {outcome.expected}"
    assert result.verdict.valid or result.verdict.word in words
    assert SENTENCES.get(name, "") in words


@pytest.mark.parametrize(("name", "problem"), [("lost", "lost"), ("doubled", "duplicated"), ("altered", "altered")])
def test_reaction_with_a_fault_is_named(name, problem):
    """Not only how many: which one, by its user."""
    problems = examined(name)[0].conservation.problems
    assert list(problems[["problem", "user_id"]].itertuples(index=False, name=None)) == [(problem, VICTIM)]


def test_count_that_differs_is_named():
    """By its window and type, with both counts."""
    differing = examined("count-raised")[0].oracle.differing
    [[window, emitted, expected]] = differing[["window", "emitted", "expected"]].values.tolist()
    assert (window, emitted - expected) == (WINDOW, 1)


def test_stalled_reaction_and_slow_subscriber_are_named():
    """The reaction that waited longest, and the subscriber whose clients saw the fault."""
    assert any(f"seq {CASUALTY}, due" in reason for reason in examined("generator-stalled")[0].verdict.reasons)
    assert examined("subscriber-slow")[0].summary["subscribers_at_fault"] == "2/1"


def test_faults_leave_the_run_as_it_was():
    """A plant changes copies: the faults that follow start from the same run."""
    before = {name: frame.copy() for name, frame in RUN.frames.items()}
    for fault in FAULTS.values():
        fault.plant(RUN)
    for name, frame in before.items():
        assert frame.equals(RUN.frames[name]), name


def test_outcome_with_a_wrong_name_is_not_named():
    """Caught under another name, beside the right one or not at all."""
    fault = frame_faults.FrameFault("one", "", ("lost",), ("oracle_share",))
    assert Outcome.of(fault, "frames", ["lost", "oracle_share"]).named
    assert not Outcome.of(fault, "frames", ["lost", "foreign"]).named
    assert not Outcome.of(fault, "frames", ["oracle_share"]).named
    assert not Outcome.of(fault, "frames", []).caught


@pytest.mark.parametrize("by_s", [3600, -0.02])
def test_the_watch_sees_the_clock_step(monkeypatch, by_s):
    """A wall clock that jumps, forward or back, while the watch looks on is in its samples, and a reason."""
    monkeypatch.setattr(clock_watch, "CLOCK_SAMPLE_S", 0.001)
    truth, step_ns = time.time_ns, 0
    monkeypatch.setattr(clock_watch.time, "time_ns", lambda: truth() + step_ns)

    def watch_on(watch, samples):
        goal = len(watch.samples) + samples
        while len(watch.samples) < goal:
            time.sleep(0.001)

    with clock_watch.ClockWatch() as watch:
        watch_on(watch, 5)
        step_ns = round(by_s * 1e9)
        watch_on(watch, 5)
    found = causality.clock(watch.samples, (0, 0)).reasons
    assert len(found) == 1
    assert found[0].startswith(f"The clock stepped by {'+' if by_s > 0 else '-'}")
