"""Accuracy: what is dropped, doubled or altered is caught and named."""

from __future__ import annotations

import json

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import ledger
from experiments.analysis import accuracy
from experiments.synthetic import run

RUN = run.make_run(rate_per_s=15.0)
PLAN = RUN.frames["plan"]
TOPIC = RUN.frames["topic"]
WINDOWS = RUN.frames["windows"]
REACTIONS = TOPIC.index[TOPIC["emoji_type"].notna()]
any_record = st.integers(0, len(REACTIONS) - 1)
any_window = st.integers(0, len(WINDOWS) - 1)


def balance(**changes):
    """Return the conservation of the synthetic run, with frames replaced by `changes`."""
    frames = RUN.frames | changes
    plan, topic, windows = (frames[name] for name in ("plan", "topic", "windows"))
    records = ledger.placed(topic, windows, ledger.identified(plan, topic))
    return accuracy.conservation(plan, ledger.joined(plan, frames["sent"], records), records, windows)


def recounted(topic, windows):
    """Return the comparison of the windows' counts with those of the topic."""
    return accuracy.oracle(ledger.placed(topic, windows))


def recount(windows, window, change):
    """Return the windows with the JSON list of cells of one changed by `change(cells)`."""
    cells = json.loads(windows.loc[window, "reactions"])
    change(cells)
    changed = windows.copy()
    changed.loc[window, "reactions"] = json.dumps(cells)
    return changed


def seq_of(row):
    """Return the seq of a topic record."""
    return int(PLAN["seq"].iloc[ledger.identified(PLAN, TOPIC.loc[[row]])[0]])


def test_a_faultless_run_balances():
    """Accepted, in the topic and counted are the same number, and nothing is named."""
    result = balance()
    assert result.exact
    assert result.accepted == result.in_topic == result.counted == len(PLAN)
    assert (result.lost, result.duplicated, result.altered, result.foreign, result.unexplained) == (0,) * 5


@given(any_record)
@settings(max_examples=15, deadline=None)
def test_a_dropped_record_is_lost_and_named(number):
    """A record missing from the topic is one lost reaction, named by its seq."""
    row = REACTIONS[number]
    result = balance(topic=TOPIC.drop(index=row))
    assert result.lost == 1
    assert result.in_topic == len(PLAN) - 1
    assert result.unexplained == 1, "the window counted what the topic does not hold"
    assert not result.exact
    assert list(result.problems["problem"]) == ["lost"]
    assert list(result.problems["seq"]) == [seq_of(row)]


@given(any_window)
@settings(max_examples=9, deadline=None)
def test_a_dropped_window_loses_its_reactions(number):
    """A window that was never emitted loses exactly the reactions it covered."""
    result = balance(windows=WINDOWS.drop(index=number))
    assert result.lost == (RUN.truth["window"] == number).sum()
    assert set(result.problems["detail"]) == {"in the topic but in no window"}


@given(any_record)
@settings(max_examples=15, deadline=None)
def test_a_doubled_record_is_duplicated_and_named(number):
    """A reaction that stands twice in covered offsets is one duplicate, named by its seq."""
    row = REACTIONS[number]
    partition = TOPIC.loc[row, "partition"]
    last = TOPIC.loc[TOPIC["partition"] == partition, "offset"].max()
    topic = pd.concat([TOPIC, TOPIC.loc[[row]].assign(offset=last + 1)], ignore_index=True)
    windows = WINDOWS.copy()
    offsets = json.loads(windows["offsets"].iloc[-1])
    offsets.setdefault(f"emoji-events-{partition}", [int(last) + 1, 0])[1] = int(last) + 1
    windows.loc[windows.index[-1], "offsets"] = json.dumps(offsets)
    result = balance(topic=topic, windows=windows)
    assert (result.duplicated, result.lost) == (1, 0)
    assert list(result.problems["problem"]) == ["duplicated"]
    assert list(result.problems["seq"]) == [seq_of(row)]


@given(any_record)
@settings(max_examples=15, deadline=None)
def test_an_altered_record_is_named(number):
    """A record with another emoji than planned is named, and its window fails the oracle."""
    row = REACTIONS[number]
    topic = TOPIC.copy()
    topic.loc[row, "emoji_type"] = "🦄"
    result = balance(topic=topic)
    assert result.altered == 1
    assert list(result.problems["seq"]) == [seq_of(row)]
    assert len(recounted(topic, WINDOWS).differing) == 2


def test_a_window_read_twice_duplicates_its_reactions():
    """Two windows over the same offsets count each reaction twice."""
    again = WINDOWS.iloc[[3]].assign(window=99)
    result = balance(windows=pd.concat([WINDOWS, again], ignore_index=True))
    assert result.duplicated == (RUN.truth["window"] == 3).sum()
    assert set(result.problems["problem"]) == {"duplicated"}


def test_a_replay_is_a_fault_only_if_it_differs():
    """The same window again counts once; again with other contents it is named."""
    assert balance(windows=pd.concat([WINDOWS, WINDOWS.iloc[[3]]], ignore_index=True)).exact
    other = WINDOWS.iloc[[3]].assign(total=1)
    result = balance(windows=pd.concat([WINDOWS, other], ignore_index=True))
    assert not result.exact
    assert list(result.problems["problem"]) == ["conflicting"]
    assert f"{run.EPOCH}:3" in result.problems["detail"].iloc[0]


def test_refused_unanswered_and_foreign_reactions_are_counted_separately():
    """Counted without a 202: unacknowledged; without a plan: foreign; refused and uncounted: no loss."""
    sent = RUN.frames["sent"].astype({"status": "int64"})
    sent.loc[sent["seq"] == 5, "status"] = 0
    result = balance(sent=sent)
    assert (result.unacknowledged, result.lost, result.accepted) == (1, 0, len(PLAN) - 1)
    result = balance(plan=PLAN.iloc[1:])
    assert (result.foreign, result.unexplained) == (1, 0)
    assert list(result.problems["problem"]) == ["foreign"]
    sent.loc[:, "status"] = 429
    assert balance(sent=sent, topic=TOPIC.drop(index=REACTIONS)).lost == 0


def test_oracle_agrees_on_a_faultless_run():
    """Every cell of a faultless run agrees, probes counting nothing."""
    result = recounted(TOPIC, WINDOWS)
    assert result.cells == result.equal == len(ledger.cells(WINDOWS))
    assert result.differing.empty


@given(any_window, st.integers(-3, 3).filter(bool))
@settings(max_examples=20, deadline=None)
def test_oracle_names_an_altered_count(number, by):
    """A count that is off by any amount is named with what it should have been."""
    expected = json.loads(WINDOWS.loc[number, "reactions"])[0]
    windows = recount(WINDOWS, number, lambda cells: cells[0].update(count=cells[0]["count"] + by))
    differing = recounted(TOPIC, windows).differing
    assert differing[["window", "emoji_type", "expected", "emitted"]].to_numpy().tolist() == [
        [number, expected["emoji_type"], expected["count"], expected["count"] + by]
    ]
    assert balance(windows=windows).unexplained == by


def test_oracle_names_a_missing_and_an_invented_cell_and_wrong_malformed():
    """A cell left out, a cell made up and a wrong number of malformed records all differ."""
    gone = recount(WINDOWS, 2, lambda cells: cells.pop())
    invented = {"emoji_type": "🦄", "count": 1, "representatives": 1}
    made_up = recount(WINDOWS, 2, lambda cells: cells.append(invented))
    assert recounted(TOPIC, gone).differing["emitted"].tolist() == [0]
    assert recounted(TOPIC, made_up).differing["expected"].tolist() == [0]
    wrong = recounted(TOPIC, WINDOWS.assign(malformed=0)).differing
    assert wrong[["window", "emitted", "expected"]].to_numpy().tolist() == [[0, 0, 2]]


def test_oracle_without_a_topic_equals_nothing():
    """With no records at all every emitted cell differs."""
    result = recounted(TOPIC.iloc[:0], WINDOWS.assign(malformed=0))
    assert (result.equal, result.cells) == (0, len(ledger.cells(WINDOWS)))


def test_gaps_and_overlaps_are_named():
    """Consecutive windows that skip or repeat offsets are named with how many."""
    assert accuracy.offset_breaks(WINDOWS).empty
    shifted = WINDOWS.copy()
    for window, by in ((2, 3), (4, -2)):
        offsets = json.loads(shifted.loc[window, "offsets"])
        offsets["emoji-events-0"][0] += by
        shifted.loc[window, "offsets"] = json.dumps(offsets)
    breaks = accuracy.offset_breaks(shifted)
    assert breaks[["window", "previous_window", "kind", "records"]].to_numpy().tolist() == [
        [2, 1, "gap", 3],
        [4, 3, "overlap", 2],
    ]
