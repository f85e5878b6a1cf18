"""The ledger: every planned reaction finds its record and its window."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import frame_files, ledger
from experiments.analysis.analyse import analyse
from experiments.synthetic import run

RUN = run.make_run()


def joined(**changes):
    """Return the ledger of the synthetic run, with frames replaced by `changes`."""
    frames = RUN.frames | changes
    return ledger.join(frames["plan"], frames["sent"], frames["topic"], frames["windows"])


def test_every_reaction_finds_its_true_window():
    """The ledger agrees with the truth of the synthetic run for every reaction."""
    reactions = joined()
    assert list(reactions.columns) == list(ledger.REACTION_COLUMNS)
    assert (reactions["window"].to_numpy(dtype="int64") == RUN.truth["window"].to_numpy()).all()
    assert (reactions["seq"] == RUN.truth["seq"]).all()


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_order_of_rows_does_not_matter(random):
    """Shuffled frames give the same ledger."""
    seed = random.randrange(2**31)
    topic = RUN.frames["topic"].sample(frac=1, random_state=seed)
    sent = RUN.frames["sent"].sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(joined(topic=topic, sent=sent), joined())


def test_absent_is_null_not_dropped():
    """A reaction that was not sent, or is not in the topic, keeps its row with nulls."""
    topic = RUN.frames["topic"]
    gone = topic[topic["emoji_type"].notna()].index[5]
    reactions = joined(topic=topic.drop(index=gone), sent=RUN.frames["sent"].iloc[1:])
    assert len(reactions) == len(RUN.frames["plan"])
    assert reactions["offset"].isna().sum() == 1
    assert reactions["window"].isna().sum() == 1
    assert pd.isna(reactions["status"].iloc[0])


def test_replayed_window_counts_once_and_first():
    """A window emitted again is known by its first record only."""
    windows = RUN.frames["windows"]
    again = pd.concat([windows, windows.iloc[[3]].assign(emitted_ns=1)])
    assert len(ledger.unique_windows(again)) == len(windows)
    assert 1 not in set(ledger.unique_windows(again)["emitted_ns"])


def test_reaction_written_twice_is_placed_where_it_was_counted():
    """Of two copies in the topic, the one inside a window is the reaction's place."""
    topic = RUN.frames["topic"]
    row = topic[topic["emoji_type"].notna()].iloc[[0]]
    early = row.assign(offset=5, appended_ns=row["appended_ns"] - 1)
    reactions = joined(topic=pd.concat([early, topic]))
    assert 5 not in set(reactions["offset"])


def test_empty_ranges_and_partitions_without_records():
    """A range whose last is below its first covers nothing."""
    windows = RUN.frames["windows"].head(1).assign(offsets=json.dumps({"emoji-events-0": [7, 6]}))
    assert ledger.offset_ranges(windows).empty
    assert joined(windows=windows)["window"].isna().all()


@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"emoji-events-0": [1]}', '{"emoji-events": [1, 2]}', None])
def test_unreadable_offsets_name_their_window(text):
    """A window with broken offsets is named with what it holds."""
    with pytest.raises(ledger.LedgerError, match=f"Window {run.EPOCH}:0"):
        ledger.offset_ranges(RUN.frames["windows"].head(1).assign(offsets=text))


@pytest.mark.parametrize("text", ["nonsense", '[{"emoji_type": "x"}]', "7", None])
def test_unreadable_reactions_name_their_window(text):
    """A window with broken reactions is named with what it holds."""
    with pytest.raises(ledger.LedgerError, match=f"Window {run.EPOCH}:0"):
        ledger.cells(RUN.frames["windows"].head(1).assign(reactions=text))


def test_missing_columns_are_named():
    """A frame without a column is refused by name."""
    with pytest.raises(ledger.LedgerError, match="sent frame lacks status"):
        joined(sent=RUN.frames["sent"].drop(columns="status"))


def test_doubled_rows_are_refused():
    """A plan that cannot be joined, or two answers for one request, are refused."""
    plan, sent = RUN.frames["plan"], RUN.frames["sent"]
    with pytest.raises(ledger.LedgerError, match="same microsecond"):
        joined(plan=pd.concat([plan, plan.iloc[[0]].assign(seq=10**6)]))
    with pytest.raises(ledger.LedgerError, match="seq 0 twice"):
        joined(sent=pd.concat([sent, sent.iloc[[0]]]))


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("plan", "seq", "x", "plan frame has 'x' in seq: expected numbers"),
        ("sent", "status", "ok", "sent frame has 'ok' in status: expected numbers"),
        ("topic", "offset", None, "topic frame has nulls in offset"),
        ("windows", "total", b"7", "windows frame has b'7' in total: expected numbers"),
        ("usage", "cpu_s", [1], r"usage frame has \[1\] in cpu_s: expected numbers"),
    ],
)
def test_column_of_the_wrong_type_is_named(name, column, value, message):
    """A frame with text for numbers, or without the number that a row needs, is refused by column."""
    frame = RUN.frames[name].copy()
    frame[column] = pd.Series([value] * len(frame), index=frame.index, dtype=object)
    with pytest.raises(ledger.LedgerError, match=message):
        ledger.require(name, frame)


@pytest.mark.parametrize("name", ledger.COLUMNS)
def test_frames_of_a_run_are_as_required(name):
    """The frames of the synthetic run pass, as do frames without a row."""
    assert ledger.require(name, RUN.frames[name]) is RUN.frames[name]
    ledger.require(name, pd.DataFrame(columns=list(ledger.COLUMNS[name])))


def test_plan_with_a_number_twice_is_refused():
    """Two planned reactions of one seq are named: no answer could be told apart."""
    plan = RUN.frames["plan"].copy()
    plan.loc[7, "seq"] = 6
    with pytest.raises(ledger.LedgerError, match="plan has seq 6 twice"):
        joined(plan=plan)


@pytest.mark.parametrize("change", [{"Z": "+00:00"}, {"T": " "}, {"Z": "000Z"}])
def test_unusual_timestamps_name_the_same_reaction(change):
    """A timestamp with another zone, separator or resolution is the same moment."""
    topic = RUN.frames["topic"].copy()
    (old, new), row = next(iter(change.items())), topic.index[topic["emoji_type"].notna()][5]
    topic.loc[row, "timestamp"] = topic.loc[row, "timestamp"].replace(old, new)
    pd.testing.assert_frame_equal(joined(topic=topic), joined())


def test_frames_from_files_give_the_same_ledger(tmp_path):
    """Categories and numbers of two bytes, as frame_files reads them, change no value."""
    frames = {}
    for name in ("plan", "sent", "topic"):
        RUN.frames[name].to_parquet(tmp_path / f"{name}.parquet", index=False)
        frames[name] = frame_files.read(tmp_path / f"{name}.parquet", name)
    assert frames["plan"]["user_id"].dtype == "category"
    assert frames["sent"]["status"].dtype == "int16"
    pd.testing.assert_frame_equal(joined(**frames).astype(object), joined().astype(object))


def test_a_plan_from_a_file_keeps_its_requests(tmp_path):
    """The arrays and other spellings of a run are those that it sent, when its report is written again as well."""
    plan = RUN.frames["plan"]
    sent_as = plan["emoji_type"].mask(plan["seq"] % 10 == 0, "like")
    plan = plan.assign(request=plan["seq"] // 3, sent_as=sent_as)
    plan.to_parquet(tmp_path / "plan.parquet", index=False)
    again = frame_files.read(tmp_path / "plan.parquet", "plan")
    asked = {}
    for name, read in (("memory", plan), ("file", again)):
        summary = analyse({**RUN.frames, "plan": read}, RUN.parameters, RUN.manifest).summary
        asked[name] = {key: summary[key] for key in ("requests", "arrays", "respelled")}
    assert asked["file"] == asked["memory"]
    assert asked["memory"]["respelled"] == -(-len(plan) // 10)
    assert asked["memory"]["arrays"] >= len(plan) // 3
