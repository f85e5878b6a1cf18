"""Each fault that the protocol names, injected into a recorded run: caught, named, and said in the first paragraph.

What the parts do with many shapes of the same faults is tested where the parts are; here a whole analysis has to come
to the right end.
"""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest

from experiments.analysis import causality
from experiments.analysis.analyse import analyse
from experiments.analysis.deliveries import expected_hashes
from experiments.load.schedule import timestamp_of
from experiments.machine import clock_watch
from experiments.report.sentences import findings
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
    found = causality.clock(watch.samples).reasons
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
    counted = deliveries["window"] == windows.loc[last, "window"]
    deliveries.loc[counted, "total"] += 1
    hashes = expected_hashes(windows, 0).set_index("window")["expected_hash"]
    deliveries.loc[counted, "shown_hash"] = hashes[windows.loc[last, "window"]]
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


def test_delivered_counts_that_are_altered_with_their_total_kept():
    """What one client was shown differs from what was emitted, and every sum is right."""
    deliveries = RUN.frames["deliveries"].copy()
    deliveries.loc[deliveries.index[5], "shown_hash"] += 1
    result, words = examined({"deliveries": deliveries})
    assert missed(result) == {"deliveries_altered"}
    assert "1 altered" in words


def test_window_that_was_delivered_and_never_emitted():
    """Every client has it, Kafka does not."""
    gone = WINDOWS.index[4]
    result, words = examined({"windows": WINDOWS.drop(index=gone)})
    assert {"deliveries_unknown", "lost", "offset_breaks"} <= missed(result)
    assert "of unknown windows" in words
    assert any("that no window shows: 4" in reason for reason in result.verdict.reasons)


def test_phantom_reactions():
    """Three hundred more in a count than there are records: no record explains them."""
    windows = WINDOWS.copy()
    cells = json.loads(windows.loc[3, "reactions"])
    cells[0]["count"] += 300
    cells[0]["representatives"] = -(-cells[0]["count"] // 10)
    windows.loc[3, "reactions"] = json.dumps(cells)
    windows.loc[3, "total"] += 300
    result, _ = examined({"windows": windows})
    assert {"unexplained", "oracle_share"} <= missed(result)


def test_reactions_of_another_sender():
    """In Kafka and counted, but nobody planned them."""
    topic = TOPIC.copy()
    topic.loc[row_of(CASUALTY), "user_id"] = "a stranger"
    result, _ = examined({"topic": topic})
    assert {"foreign", "lost"} <= missed(result)


def test_refusals_below_one_percent():
    """0.9 % of the load was answered 503: 99 % accepted is not enough."""
    sent = RUN.frames["sent"].copy()
    measured = sent.index[(PLAN["phase"] == "measured").to_numpy()]
    refused = measured[:: len(measured) // (len(measured) * 9 // 1000)]
    sent.loc[refused, "status"] = 503
    result, _ = examined({"sent": sent})
    assert "accepted_share" in missed(result)


def test_window_that_was_emitted_again_with_other_contents():
    """A replay must repeat its window."""
    again = WINDOWS.loc[[3]].assign(total=WINDOWS.loc[3, "total"] + 1)
    result, _ = examined({"windows": pd.concat([WINDOWS, again], ignore_index=True)})
    assert missed(result) == {"conflicting"}


@pytest.mark.parametrize(
    ("frames", "about", "name"),
    [
        ({"usage": RUN.frames["usage"].iloc[:0]}, {}, "CPU time was not sampled"),
        ({"progress": RUN.frames["progress"].iloc[::2]}, {}, "Spark's progress is incomplete"),
        (
            {"topic": TOPIC.assign(appended_ns=TOPIC["appended_ns"] + 3 * 10**9)},
            {},
            "Kafka's clock differs from ours",
        ),
        (
            {"receivers_timer": RUN.frames["receivers_timer"].assign(late_ns=1_600 * NS_PER_MS)},
            {},
            "The receivers were late",
        ),
        (
            {},
            {"clock_samples": [[t + i * 4_900_000, m] for i, (t, m) in enumerate(RUN.manifest["clock_samples"])]},
            "The clock drifted",
        ),
        (
            {"windows": WINDOWS.assign(trigger_ns=WINDOWS["trigger_ns"] + (WINDOWS["window"] == 3) * 10**9)},
            {},
            "Triggers are wrong",
        ),
    ],
)
def test_fault_of_the_instrument_makes_the_run_invalid(frames, about, name):
    """What cannot be trusted is not quoted, and the first paragraph says why."""
    result, words = examined(frames, **about)
    assert not result.verdict.valid
    assert any(reason.startswith(name) for reason in result.verdict.reasons)
    assert "INVALID" in words


def test_foreign_process_on_a_core():
    """Its CPU time is nobody's of this run."""
    usage = RUN.frames["usage"]
    grown = (usage["t_ns"] - usage["t_ns"].min()) / 1e9
    busy = usage.assign(cpu_s=usage["cpu_s"] + grown * (usage["stage"] == "machine"))
    result, _ = examined({"usage": busy})
    assert [reason[:34] for reason in result.verdict.reasons] == ["Foreign work used the machine: pro"]


def test_client_that_is_in_no_frame():
    """Six were asked for."""
    keep = {
        name: frame[frame["client_id"] != "client-002"] for name, frame in RUN.frames.items() if "client_id" in frame
    }
    result, _ = examined(keep)
    assert any(reason.startswith("Clients are missing: 5 of the 6") for reason in result.verdict.reasons)
