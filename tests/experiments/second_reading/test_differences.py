"""Two readings of one run agree in every figure, whatever happened to it, and a figure that differs is named."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import second_reading
from experiments.analysis import validity
from experiments.analysis.analyse import analyse
from experiments.ledger import COLUMNS
from experiments.second_reading.differences import NO_SECOND_READING, compared, frame_differences
from experiments.second_reading.reading import read_frames
from experiments.stats import steadiness
from experiments.synthetic.run import Run, make_run
from experiments.units import NS_PER_MS, NS_PER_S

POLICIES = ("ceil", "floor", "carry", "stochastic")


@cache
def small(policy: str = "ceil") -> Run:
    """A run of some hundred reactions, long enough for the slope of the lag; do not change its frames."""
    return make_run(rate_per_s=6.0, clients=3, measured_triggers=10, policy=policy)


def altered(run: Run, name: str, **columns: object) -> Run:
    """Return the run with columns of one frame replaced."""
    return replace(run, frames=run.frames | {name: run.frames[name].assign(**columns)})


def some(frame: pd.DataFrame, seed: int, share: float = 0.05) -> np.ndarray:
    """Return which rows something happens to."""
    return np.random.default_rng(seed).random(len(frame)) < share


def lost_and_doubled(run: Run) -> Run:
    """Records missing, others written twice, one of a stranger, one of another emoji, one that cannot be read."""
    topic = run.frames["topic"]
    kept = topic[~some(topic, 1)]
    copies = kept.iloc[20:25].assign(offset=topic["offset"].max() + 1 + np.arange(5))
    topic = pd.concat([kept, copies], ignore_index=True)
    topic.loc[10, "user_id"] = "a stranger"
    topic.loc[11, "emoji_type"] = "🦄"
    topic.loc[12, "emoji_type"] = None
    return replace(run, frames=run.frames | {"topic": topic})


def refused_and_unsent(run: Run) -> Run:
    """Refused, unanswered and unsent reactions, and some without a row in the frame."""
    sent = run.frames["sent"].astype({"t_sent_ns": "Int64", "t_answered_ns": "Int64"})
    sent.loc[some(sent, 2), "status"] = 503
    sent.loc[some(sent, 3), ["status", "t_answered_ns"]] = [0, pd.NA]
    sent.loc[some(sent, 4), ["status", "t_sent_ns", "t_answered_ns"]] = [0, pd.NA, pd.NA]
    return replace(run, frames=run.frames | {"sent": sent[~some(sent, 5)]})


def windows_wrong(run: Run) -> Run:
    """A window missing, one repeated with other contents, a count, a representative and a remainder wrong."""
    windows = run.frames["windows"]
    cells = json.loads(windows.loc[4, "reactions"])
    cells[0]["count"] += 30
    cells[-1]["representatives"] += 2
    again = windows.loc[[6]].assign(total=0)
    windows = pd.concat([windows.drop(index=2), again], ignore_index=True)
    row = windows.index[windows["window"] == 4][0]
    windows.loc[row, ["reactions", "carried"]] = [json.dumps(cells), json.dumps({"😂": 3})]
    return replace(run, frames=run.frames | {"windows": windows})


def offsets_wrong(run: Run) -> Run:
    """Ranges that overlap, leave a gap, and are empty."""
    windows = run.frames["windows"].copy()
    for row, ends in ((3, (-4, 0)), (5, (3, 0)), (7, (0, -1000))):
        offsets = json.loads(windows.loc[row, "offsets"])
        offsets = {key: [first + ends[0], last + ends[1]] for key, (first, last) in offsets.items()}
        windows.loc[row, "offsets"] = json.dumps(offsets)
    return replace(run, frames=run.frames | {"windows": windows})


def deliveries_wrong(run: Run) -> Run:
    """Deliveries missing, doubled, in another order, late, altered and of a window that nobody emitted."""
    rows = run.frames["deliveries"].copy()
    rows.loc[some(rows, 6), "received_ns"] += 3 * NS_PER_S
    rows.loc[some(rows, 7), "shown_hash"] += 1
    rows.loc[rows.index[3], "total"] += 1
    rows.loc[rows.index[4], "window"] += 900
    rows = pd.concat([rows[~some(rows, 8)], rows.iloc[8:12]], ignore_index=True)
    return replace(run, frames=run.frames | {"deliveries": rows.sample(frac=1, random_state=1)})


def clients_come_and_go(run: Run) -> Run:
    """One joins late, one leaves early, one never leaves."""
    clients = run.frames["clients"].astype({"left_ns": "Int64"})
    due = run.frames["plan"]["t_intended_ns"]
    clients.loc[0, "joined_ns"] = int(due.quantile(0.3))
    clients.loc[1, "left_ns"] = int(due.quantile(0.6))
    clients.loc[2, "left_ns"] = pd.NA
    return replace(run, frames=run.frames | {"clients": clients})


def clients_all_late(run: Run) -> Run:
    """All join in the middle of the load: the reactions before were owed to nobody, and some of them were refused."""
    clients, sent = run.frames["clients"], run.frames["sent"]
    joined_ns = int(run.frames["plan"]["t_intended_ns"].quantile(0.6))
    status = sent["status"].mask(some(sent, 12, 0.3), 503)
    return altered(altered(run, "clients", joined_ns=clients["joined_ns"] * 0 + joined_ns), "sent", status=status)


def stamps_wrong(run: Run) -> Run:
    """Effects before their causes, and a trigger off the grid."""
    topic, deliveries, windows = (run.frames[name].copy() for name in ("topic", "deliveries", "windows"))
    topic.loc[some(topic, 9), "appended_ns"] -= NS_PER_S
    topic.loc[some(topic, 10), "flushed_ns"] = pd.NA
    deliveries.loc[some(deliveries, 11), "main_sent_ns"] -= NS_PER_S
    windows.loc[3, "trigger_ns"] += 700 * NS_PER_MS
    return replace(run, frames=run.frames | {"topic": topic, "deliveries": deliveries, "windows": windows})


def slow_batches(run: Run) -> Run:
    """Micro-batches that grow until a trigger is missed, so that the lag grows as well."""
    windows = run.frames["windows"]
    slow = windows["window"] ** 2 * 90 * NS_PER_MS
    shifted = altered(run, "windows", emitted_ns=windows["emitted_ns"] + slow, trigger_ns=windows["trigger_ns"] + slow)
    return altered(shifted, "progress", trigger_execution_ms=run.frames["progress"]["trigger_execution_ms"] * 4)


def change_in_the_middle(run: Run) -> Run:
    """Windows and micro-batches that take half a second more from the fifth on."""
    rows, progress = run.frames["deliveries"], run.frames["progress"]
    moved = altered(run, "deliveries", received_ns=rows["received_ns"] + (rows["window"] > 5) * NS_PER_S // 2)
    took_ms = progress["trigger_execution_ms"] + (progress["batch_id"] > 6) * 300
    return altered(moved, "progress", trigger_execution_ms=took_ms)


def second_epoch(run: Run) -> Run:
    """A new checkpoint in the middle: the numbers of windows begin again."""
    frames = dict(run.frames)
    for name, column in (("windows", "window"), ("deliveries", "window"), ("progress", "batch_id")):
        late = frames[name][column] >= 5
        frames[name] = frames[name].assign(**{column: frames[name][column] - 5 * late})
        if name != "progress":
            epoch = frames[name]["epoch"].mask(late, "second")
            frames[name] = frames[name].assign(epoch=epoch)
            if name == "deliveries":
                frames[name]["event_id"] = epoch + ":" + frames[name]["window"].astype(str)
    return replace(run, frames=frames)


def machine_busy(run: Run) -> Run:
    """Facts of the manifest, a stage without samples, and users of a closed loop that have no core left."""
    usage = run.frames["usage"]
    load = usage[usage["stage"] == "ingest"].assign(stage="load", cpu_s=lambda rows: rows["cpu_s"] * 12)
    usage = pd.concat([usage, load, load.iloc[:1].assign(stage="once")], ignore_index=True)
    about = (
        run.manifest
        | {"cores": 2, "steal_s": 4.0, "work_s": [0.05, 0.08], "top_n": 3}
        | {"warm_up": {"triggers": 7, "settled": True}}
    )
    given = run.parameters | {"loop": "closed", "clients": 4, "slos": '{"e2e_excess_p99_s": 0.1, "lost": 2}'}
    return replace(run, frames=run.frames | {"usage": usage}, manifest=about, parameters=given)


def clock_forth_and_back(run: Run) -> Run:
    """A clock that is slewed by 4 ms per second for half of the run, and back for the other half."""
    samples = run.manifest["clock_samples"]
    middle = len(samples) // 2
    slewed = [[t + min(i, 2 * middle - i) * 4 * NS_PER_MS, m] for i, (t, m) in enumerate(samples)]
    return replace(run, manifest=run.manifest | {"clock_samples": slewed})


def broker_wrong_for_a_while(run: Run) -> Run:
    """Kafka's clock is 50 ms ahead in four windows of ten."""
    appended = run.frames["topic"]["appended_ns"]
    first, last = appended.min(), appended.max()
    later = appended.between(first + (last - first) * 0.5, first + (last - first) * 0.95)
    return altered(run, "topic", appended_ns=appended + later * 50 * NS_PER_MS)


def appends_slow_for_a_while(run: Run) -> Run:
    """Every append of two windows of ten takes 50 ms longer."""
    appended = run.frames["topic"]["appended_ns"]
    first, last = appended.min(), appended.max()
    slow = appended.between(first + (last - first) * 0.5, first + (last - first) * 0.65)
    return altered(run, "topic", appended_ns=appended + slow * 50 * NS_PER_MS)


def clock_steps(run: Run) -> Run:
    """A clock that steps, on a machine that is shared."""
    samples = [[t + (20 * NS_PER_MS if i > 30 else 0), m] for i, (t, m) in enumerate(run.manifest["clock_samples"])]
    given = run.parameters | {"machine": "shared"}
    return replace(run, manifest=run.manifest | {"clock_samples": samples}, parameters=given)


def nothing_left(run: Run) -> Run:
    """No window, no delivery, no sample."""
    empty = {
        name: run.frames[name].iloc[:0] for name in ("windows", "deliveries", "progress", "usage", "receivers_timer")
    }
    return replace(run, frames=run.frames | empty, manifest=run.manifest | {"clock_samples": []})


def nothing_planned(run: Run) -> Run:
    """Every frame is empty."""
    return replace(run, frames={name: frame.iloc[:0] for name, frame in run.frames.items()})


FAULTS = (
    *(lost_and_doubled, refused_and_unsent, windows_wrong, offsets_wrong, deliveries_wrong, clients_come_and_go),
    *(clients_all_late, stamps_wrong, slow_batches, change_in_the_middle, second_epoch, machine_busy, clock_steps),
    *(clock_forth_and_back, broker_wrong_for_a_while, appends_slow_for_a_while),
    *(nothing_left, nothing_planned),
)


def cut(run: Run, name: str, since: float, to: float) -> Run:
    """Return the run without the rows of a frame between two shares of the load."""
    due, moments = run.frames["plan"]["t_intended_ns"], run.frames[name]["t_ns"]
    first, span = due.min(), due.max() - due.min()
    inside = moments.between(first + since * span, first + to * span)
    return replace(run, frames=run.frames | {name: run.frames[name][~inside]})


def differing(run: Run) -> list[str]:
    """Return what differs between the two readings."""
    summary = analyse(run.frames, run.parameters, run.manifest).summary
    return frame_differences(run.frames, run.parameters, run.manifest, summary)


@pytest.mark.parametrize("policy", POLICIES)
def test_readings_of_a_clean_run_agree(policy):
    """Under each policy of representatives."""
    assert differing(small(policy)) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_readings_of_a_faulty_run_agree(fault):
    """Whatever is wrong with a run, both readings count it alike. Only a new checkpoint changes no figure."""
    run = fault(small("carry" if fault is windows_wrong else "ceil"))
    summary = analyse(run.frames, run.parameters, run.manifest).summary
    assert frame_differences(run.frames, run.parameters, run.manifest, summary) == []
    assert (compared(summary, both()[1]) == []) == (fault is second_epoch)


@pytest.mark.parametrize("by", [0.99, 1.01])
@pytest.mark.parametrize("limit", ["foreign", "steal", "work"])
def test_readings_have_the_same_limits(limit, by):
    """A run just below a limit of validity is VALID in both readings, one just above it INVALID."""
    run = small()
    due = run.frames["plan"]["t_intended_ns"]
    lasted_s = (due.max() - due.min()) / NS_PER_S
    if limit == "foreign":
        usage = run.frames["usage"]
        since_s = (usage["t_ns"] - usage["t_ns"].min()) / NS_PER_S
        missing = by * validity.FOREIGN_SHARE * 2 - 0.02
        run = altered(run, "usage", cpu_s=usage["cpu_s"] + since_s * missing * (usage["stage"] == "machine"))
    about = {
        "foreign": {"cores": 2},
        "steal": {"cores": 2, "steal_s": by * validity.STEAL_SHARE * 2 * lasted_s},
        "work": {"work_s": [1.0, by * validity.WORK_RATIO]},
    }
    run = replace(run, manifest=run.manifest | about[limit])
    summary = analyse(run.frames, run.parameters, run.manifest).summary
    assert frame_differences(run.frames, run.parameters, run.manifest, summary) == []
    assert summary["valid"] == (by < 1)


def test_readings_have_the_same_penalties():
    """The numbers that simulated steady runs gave stand in both."""
    text = (Path(second_reading.__file__).parent / "sql" / "17_steadiness.sql").read_text(encoding="utf-8")
    listed = text.partition("VALUES (10")[2].partition("\n")[0]
    numbers = tuple((int(n), float(penalty)) for n, penalty in re.findall(r"(\d+), ([\d.]+)\)", "(10" + listed))
    assert numbers == steadiness._RARELY_AT


@pytest.mark.parametrize(
    ("name", "since", "to", "words"),
    [
        ("usage", 0.3, 0.6, "CPU time was not sampled for"),
        ("usage", 0.7, 1.1, "CPU time was not sampled for"),
        ("receivers_timer", 0.5, 0.6, "The receivers were not timed for"),
        ("receivers_timer", 0.1, 1.1, "The receivers were not timed for"),
    ],
)
def test_frame_with_a_hole_is_found_by_both_readings(name, since, to, words):
    """A frame that ends early says nothing of the rest of the load."""
    run = cut(small(), name, since, to)
    result = analyse(run.frames, run.parameters, run.manifest)
    assert [reason for reason in result.verdict.reasons if reason.startswith(words)]
    assert differing(run) == []


def test_clock_that_was_watched_at_both_ends_only_is_found_by_both_readings():
    """A step between the two would not be noticed."""
    samples = small().manifest["clock_samples"]
    for few in ([samples[0], samples[-1]], samples[:5]):
        run = replace(small(), manifest=small().manifest | {"clock_samples": few})
        result = analyse(run.frames, run.parameters, run.manifest)
        assert any(reason.startswith("The clock was not watched for") for reason in result.verdict.reasons)
        assert differing(run) == []


@pytest.mark.parametrize(
    "given",
    [
        {"flush_phase": "free"},
        {"flush_phase": "free", "flush_ms": 0},
        {"flush_ms": 0},
        {"flush_lead_ms": 0},
        {"trigger_s": 5.0},
        {"trigger_s": 0.5},
        {"group_size": 1},
        {"grace_s": 0.0, "late_s": 0.2},
    ],
    ids=str,
)
def test_readings_agree_for_other_parameters(given):
    """The floors of both flush phases, other grids, and a policy that the run did not have."""
    run = small()
    assert differing(replace(run, parameters=run.parameters | given)) == []


def test_readings_of_bursts_agree():
    """Most reactions fall into a few moments."""
    plan = small().frames["plan"]
    close = plan["t_intended_ns"] // NS_PER_S % 6 < 2
    run = replace(small(), frames=small().frames | {"plan": plan[close], "sent": small().frames["sent"][close]})
    assert differing(run) == []


@cache
def both() -> tuple[dict[str, object], dict[str, float | str]]:
    """Return the summary of a run and its second reading."""
    run = small()
    return (
        analyse(run.frames, run.parameters, run.manifest).summary,
        read_frames(run.frames, run.parameters, run.manifest),
    )


@pytest.mark.parametrize("key", sorted(both()[1]))
def test_figure_that_is_changed_is_named(key):
    """Each figure by itself: a summary that is wrong in one place is found out in that place."""
    summary, second = both()
    value = second[key]
    wrong = f"{value}?" if isinstance(value, str) else 1.0 if math.isnan(value) else value + 1e-6 * max(abs(value), 1.0)
    name = key.removeprefix("slos.")
    changed = summary | ({"slos": summary["slos"] | {name: wrong}} if key.startswith("slos.") else {key: wrong})
    found = compared(changed, second)
    assert [sentence.partition(":")[0] for sentence in found] == [key]
    assert repr(wrong) in found[0]


def test_key_without_a_second_reading_is_named():
    """A figure that is added to the summary needs a second reading; one that is taken away is missed."""
    summary, second = both()
    assert compared(summary | {"another_s": 1.0}, second) == [
        "another_s: the summary has 1.0, and there is no second reading of it"
    ]
    del (less := dict(summary))["lost"]
    assert compared(less, second) == ["lost: the summary lacks it, and the second reading is 0.0"]


def test_keys_that_are_not_read_again_exist():
    """The list of exceptions has no key that is gone, and none that is read."""
    summary, second = both()
    assert set(NO_SECOND_READING) <= set(summary)
    assert not set(NO_SECOND_READING) & set(second)


def test_every_column_of_the_ledger_is_read():
    """The tables of SQL have the frames' columns, so that neither can gain one alone."""
    from experiments.second_reading.reading import OF_FORMS, opened_frames

    run = small()
    with opened_frames(run.frames, run.parameters, run.manifest) as connection:
        for name, columns in COLUMNS.items():
            described = [column for column, *_ in connection.execute(f"DESCRIBE {name}").fetchall()]
            assert [column for column in described if column not in ("position", *OF_FORMS)] == list(columns)
