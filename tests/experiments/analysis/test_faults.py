"""Each fault that the protocol names, injected into a recorded run: caught, named, and said in the first paragraph.

What the parts do with many shapes of the same faults is tested where the parts are; here a whole analysis has to come
to the right end.
"""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest

from experiments.analysis import verdict
from experiments.analysis.analyse import analyse
from experiments.load.schedule import timestamp_of
from experiments.report.sentences import findings
from experiments.run import manifest
from experiments.synthetic import run
from experiments.units import NS_PER_MS

# Long enough for the growth of the lag to be told.
RUN = run.make_run(measured_triggers=12)
PLAN, TOPIC, WINDOWS = (RUN.frames[name] for name in ("plan", "topic", "windows"))
CASUALTY = 1000  # seq of the reaction that something happens to
VICTIM = PLAN.loc[CASUALTY, "user_id"]


def row_of(seq):
    """Return where a planned reaction stands in the topic."""
    planned = PLAN.loc[seq]
    of_it = (TOPIC["user_id"] == planned["user_id"]) & (TOPIC["timestamp"] == timestamp_of(planned["t_intended_ns"]))
    return TOPIC.index[of_it][0]


def examined(frames=None, **about):
    """Return (analysis, first paragraph) of the synthetic run with these frames and manifest entries changed."""
    result = analyse(RUN.frames | (frames or {}), RUN.parameters, RUN.manifest | about)
    return result, " ".join(findings(result.summary, RUN.parameters))


def missed(result):
    """Return the keys of the objectives that were not met."""
    return {slo.key for slo in result.verdict.slos if not slo.passed}


def named(result):
    """Return (problem, user) of every problem that is named."""
    return list(result.conservation.problems[["problem", "user_id"]].itertuples(index=False, name=None))


def test_a_faultless_run_is_valid_and_passes():
    """Without a fault nothing is caught: what follows is caught for its own sake."""
    result, words = examined()
    assert result.verdict.passed
    assert missed(result) == set()
    assert named(result) == []
    assert not {"INVALID", "lost", "late", "differing"} & set(words.split())


def test_a_stalled_generator():
    """A second in which nothing went out makes the run INVALID, with the reaction that waited longest."""
    sent = RUN.frames["sent"]
    until_ns = int(PLAN.loc[CASUALTY, "t_intended_ns"]) + 1000 * NS_PER_MS
    held = (PLAN["seq"] >= CASUALTY) & (PLAN["t_intended_ns"] < until_ns)
    result, words = examined({"sent": sent.assign(t_sent_ns=sent["t_sent_ns"].mask(held, until_ns))})
    assert not result.verdict.valid
    assert any(f"The generator stalled: seq {CASUALTY}, due" in reason for reason in result.verdict.reasons)
    assert "INVALID" in words
    assert "the generator stalled" in words


def test_a_stepped_clock():
    """A step of ten milliseconds makes the run INVALID, with its size and moment."""
    clock = [[t + (10 * NS_PER_MS if i >= 30 else 0), m] for i, (t, m) in enumerate(RUN.manifest["clock_samples"])]
    result, words = examined(clock_samples=clock)
    assert not result.verdict.valid
    assert result.verdict.reasons[0].startswith("The clock stepped by +10.0 ms, 30.0 s into the run")
    assert "INVALID" in words
    assert "the clock stepped by +10.0 ms" in words


@pytest.mark.parametrize("by_s", [3600, -0.02])
def test_the_watch_sees_the_clock_step(monkeypatch, by_s):
    """A wall clock that jumps, forward or back, while the watch looks on is in its samples, and a reason."""
    monkeypatch.setattr(manifest, "CLOCK_SAMPLE_S", 0.001)
    truth, step_ns = time.time_ns, 0
    monkeypatch.setattr(manifest.time, "time_ns", lambda: truth() + step_ns)

    def watch_on(watch, samples):
        goal = len(watch.samples) + samples
        while len(watch.samples) < goal:
            time.sleep(0.001)

    with manifest.ClockWatch() as watch:
        watch_on(watch, 5)
        step_ns = round(by_s * 1e9)
        watch_on(watch, 5)
    found = verdict.reasons_against(PLAN, RUN.frames["sent"], watch.samples, other_run=False)
    assert len(found) == 1
    assert found[0].startswith(f"The clock stepped by {'+' if by_s > 0 else '-'}")


def test_a_dropped_record():
    """A reaction that was answered 202 and is not in Kafka is lost, and named; its window fails the recount."""
    result, words = examined({"topic": TOPIC.drop(index=row_of(CASUALTY))})
    assert named(result) == [("lost", VICTIM)]
    assert {"lost", "oracle_share"} <= missed(result)
    assert "one reaction lost" in words


def test_a_doubled_record():
    """A reaction that stands in Kafka twice and is counted twice is named, although each count is right."""
    row = TOPIC.loc[row_of(CASUALTY)]
    end = int(TOPIC.loc[TOPIC["partition"] == row["partition"], "offset"].max()) + 1
    copy = pd.DataFrame([row.to_dict() | {"offset": end, "appended_ns": TOPIC["appended_ns"].max()}])
    topic = pd.concat([TOPIC, copy.astype(TOPIC.dtypes)], ignore_index=True)
    windows = WINDOWS.copy()
    last = windows.index[-1]
    key = f"emoji-events-{row['partition']}"
    offsets = json.loads(windows.loc[last, "offsets"])
    offsets[key][1] = end
    cells = json.loads(windows.loc[last, "reactions"])
    one = next((cell for cell in cells if cell["emoji_type"] == row["emoji_type"]), None)
    if one is None:
        cells.append({"emoji_type": row["emoji_type"], "count": 1, "representatives": 1})
    else:
        one |= {"count": one["count"] + 1, "representatives": -(-(one["count"] + 1) // 10)}
    windows.loc[last, ["offsets", "reactions", "total"]] = [
        *(json.dumps(offsets), json.dumps(cells)),
        windows.loc[last, "total"] + 1,
    ]
    deliveries = RUN.frames["deliveries"].copy()
    deliveries.loc[deliveries["window"] == windows.loc[last, "window"], "total"] += 1
    result, words = examined({"topic": topic, "windows": windows, "deliveries": deliveries})
    assert named(result) == [("duplicated", VICTIM)]
    assert missed(result) == {"duplicated"}
    assert "one reaction counted more than once" in words


def test_an_altered_count():
    """A count that says one more than Kafka holds fails the recount, and its window and type are named."""
    windows = WINDOWS.copy()
    cells = json.loads(windows.loc[3, "reactions"])
    cells[0]["count"] += 1
    windows.loc[3, "reactions"] = json.dumps(cells)
    result, words = examined({"windows": windows})
    differing = result.oracle.differing[["window", "emoji_type", "emitted", "expected"]]
    assert differing.values.tolist() == [[3, cells[0]["emoji_type"], cells[0]["count"], cells[0]["count"] - 1]]
    assert "oracle_share" in missed(result)
    assert "one count differing from what the topic holds" in words


def test_a_slow_subscriber():
    """A subscriber that is three seconds behind makes every delivery of its clients late, and is named."""
    people, deliveries = RUN.frames["clients"], RUN.frames["deliveries"]
    its_own = set(people.loc[(people["cluster"] == "2") & (people["subscriber"] == "1"), "client_id"])
    behind = deliveries["client_id"].isin(its_own) * 3000 * NS_PER_MS
    slow = deliveries.assign(
        subscriber_sent_ns=deliveries["subscriber_sent_ns"] + behind, received_ns=deliveries["received_ns"] + behind
    )
    result, words = examined({"deliveries": slow})
    assert result.summary["deliveries_late"] == len(its_own) * len(WINDOWS)
    assert "deliveries_late" in missed(result)
    assert result.summary["subscribers_at_fault"] == "2/1"
    assert f"{len(its_own) * len(WINDOWS)} late (at subscriber 2/1)" in words
